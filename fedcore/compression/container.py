"""The lossless end of compression: Zstandard over a whole message (RFC 8878)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedcore.errors import BlobError

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

_MAGIC = b"\x28\xb5\x2f\xfd"

_LEVEL = 1  # codecs leave few repetitions to look for, only bytes that are rarer than others
_THOROUGH = 13  # for small messages, where it takes no time and saves some percent
_SMALL = 1 << 20

_WINDOW_LOG_MAX = 27  # what a decoder must hold of the past: 128 MiB


def compress(parts: Iterable[bytes | memoryview], past: bytes = b"") -> bytes:
    """One frame of the parts, one after the other. A part has a block, and so a code, of its own:
    signs, gaps and text have little in common.

    ``past``: what the reader has already; what is found in there takes next to nothing.
    """
    pieces = list(parts)
    size = sum(len(piece) for piece in pieces)
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: _THOROUGH if size <= _SMALL or past else _LEVEL,
        # Over everything, past included, as far as ``expand`` reads.
        parameter.window_log: min(max((size + len(past)).bit_length(), 10), _WINDOW_LOG_MAX),
    }
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=_known(past))
    compressor.set_pledged_input_size(size)
    blocks = [compressor.compress(piece, mode=compressor.FLUSH_BLOCK) for piece in pieces]
    return b"".join((*blocks, compressor.flush()))


def is_compressed(data: bytes | memoryview) -> bool:
    """Whether this is a frame of ``compress``."""
    return bytes(data[:4]) == _MAGIC


def expand(data: bytes | memoryview, max_bytes: int, past: bytes = b"") -> bytes:
    """The inverse. Raises BlobError for more than ``max_bytes``, before any of it is in memory,
    and for anything but one whole frame that tells its size."""
    try:
        size = zstd.get_frame_info(data).decompressed_size
        if size is None:
            raise BlobError("a compressed message that does not tell its size")
        if size > max_bytes:
            raise BlobError(f"a compressed message of {size} bytes; {max_bytes} are accepted")
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        decompressor = zstd.ZstdDecompressor(zstd_dict=_known(past), options=options)
        whole = decompressor.decompress(data, max_length=size + 1)
        if len(whole) != size or not decompressor.eof or decompressor.unused_data:
            raise BlobError("a compressed message of another size than it tells")
    except (zstd.ZstdError, ValueError) as error:
        raise BlobError(f"not a compressed message: {error}") from error
    return whole


def _known(past: bytes) -> Any:
    return zstd.ZstdDict(past, is_raw=True) if len(past) >= 8 else None
