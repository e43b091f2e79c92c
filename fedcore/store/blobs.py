"""Blobs: named arrays and a JSON header in one safetensors file. Nothing in one can execute."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import save

from fedcore.compression import container
from fedcore.errors import BlobError

HEADER_KEY = "fedcore"
MAX_HEADER_BYTES = 1 << 20
"""Enough for thousands of arrays. Reading JSON that a stranger made can take 250 times its size."""

MAX_EXPANDED_BYTES = 1 << 30

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1",
           "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}  # fmt: skip

_Size = Annotated[int, Field(ge=0, lt=2**63)]


class _Tensor(BaseModel):
    """One entry of a safetensors header; offsets count bytes from the end of the header."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dtype: str
    shape: list[_Size] = Field(max_length=64)
    data_offsets: tuple[_Size, _Size]


class _Header(BaseModel):
    """A safetensors header: the arrays by name, and text that belongs to all of them."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    __pydantic_extra__: dict[str, _Tensor] = Field(init=False)

    metadata: dict[str, str] = Field(default={}, alias="__metadata__")


def pack(
    arrays: Mapping[str, NDArray[Any]],
    header: Mapping[str, Any] | None = None,
    *,
    compress: bool = False,
) -> bytes:
    """One safetensors file: ``arrays`` in name order, ``header`` as JSON in its metadata.

    ``compress``: in a lossless container. The same content gives the same bytes. Raises BlobError
    for a type or a size of the header that unpack would not read.
    """
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    for name, array in ordered.items():
        if array.dtype.newbyteorder("<").str not in _DTYPES.values():
            raise BlobError(f"array {name!r} has the unsupported type {array.dtype}")
    text = json.dumps(header or {}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    data = bytes(save(ordered, metadata={HEADER_KEY: text}))
    _check_header(int.from_bytes(data[:8], "little"))
    return container.compress(_parts(data)) if compress else data


def unpack(
    data: bytes | memoryview, max_bytes: int | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, as read-only views of ``data``, and the header.

    What is in a container may have ``max_bytes`` when it is out of it (None: a gigabyte). Raises
    BlobError on anything but what pack makes. The safetensors library would copy every array
    (longer than reading them took), so the header is checked here, at least as strictly: known
    types, sizes that fit, and arrays that cover the data without a gap or an overlap.
    """
    if container.is_compressed(data):
        data = container.expand(data, MAX_EXPANDED_BYTES if max_bytes is None else max_bytes)
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or end > len(data):
        raise BlobError(f"not a safetensors blob: its header does not fit in {len(data)} bytes")
    _check_header(end - 8)
    try:
        layout = _Header.model_validate_json(bytes(data[8:end]))
        header = json.loads(layout.metadata.get(HEADER_KEY, "{}"))
        arrays = _views(data, end, layout.__pydantic_extra__)
    except ValidationError as error:
        raise BlobError(f"not a safetensors blob: {error.errors()[0]['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise BlobError(f"not a safetensors blob: {error}") from error
    if not isinstance(header, dict):
        raise BlobError("the blob's header is not a JSON object")
    return arrays, header


def digest(data: bytes) -> str:
    """SHA-256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _check_header(size: int) -> None:
    if size > MAX_HEADER_BYTES:
        raise BlobError(f"the blob's header has {size} bytes; {MAX_HEADER_BYTES} are accepted")


def digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256, in hex, over names, types, shapes and every bit, in name order."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name}:{array.dtype.str}{array.shape};".encode())
        state.update(array.data)
    return state.hexdigest()


def _parts(data: bytes) -> list[memoryview]:
    """What pack made, in parts with little in common: codes, an array at a time, and the rest."""
    whole, end = memoryview(data), 8 + int.from_bytes(data[:8], "little")
    layout = _Header.model_validate_json(data[8:end]).__pydantic_extra__
    codes = [tensor.data_offsets for tensor in layout.values() if tensor.dtype == "U8"]
    cuts = {0, end, len(data), *(end + offset for offsets in codes for offset in offsets)}
    return [whole[begin:stop] for begin, stop in pairwise(sorted(cuts))]


def _views(
    data: bytes | memoryview, begin: int, tensors: Mapping[str, _Tensor]
) -> dict[str, NDArray[Any]]:
    arrays, offset = {}, begin
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if tensor.dtype not in _DTYPES:
            raise BlobError(f"array {name!r} has the unsupported type {tensor.dtype}")
        dtype, count = np.dtype(_DTYPES[tensor.dtype]), math.prod(tensor.shape)
        end = offset + count * dtype.itemsize
        if tensor.data_offsets != (offset - begin, end - begin) or end > len(data):
            raise BlobError(f"array {name!r} does not lie where its type and shape say")
        flat = np.frombuffer(data, dtype=dtype, count=count, offset=offset)
        arrays[name] = flat.reshape(tensor.shape)
        offset = end
    if offset != len(data):
        raise BlobError(f"the blob has {len(data) - offset} bytes that belong to no array")
    return {name: arrays[name] for name in sorted(arrays)}
