"""Vectors as ciphertexts: encrypted chunk by chunk, added in place, decrypted.

A chunk holds ``Parameters.slots`` values, the last one padded with zeros.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tenseal as ts
from numpy.typing import NDArray

from fedcore.errors import UpdateRejected
from fedcore.privacy.ckks.parameters import Parameters

Values = NDArray[np.float64]
Chunk = bytes | memoryview

_SLACK = 2.0**-23  # one float32 rounding, such as that of a value clipped to exactly the bound
_HEADERS = 512  # bytes that SEAL and TenSEAL put around a ciphertext, and Zstandard around noise
_LENGTH = struct.Struct("<I")


def encrypt(values: NDArray[Any], secret_context: bytes, parameters: Parameters) -> Iterator[bytes]:
    """The 1-D values as chunks, one at a time: memory is a chunk's.

    Never the same bytes twice, whatever the values. Raises ValueError for a value out of bound or
    not finite.
    """
    context = ts.context_from(secret_context, n_threads=1)
    for begin in range(0, values.size, parameters.slots):
        block = values[begin : begin + parameters.slots].astype(np.float64)
        largest = max(block.max(initial=0.0), -block.min(initial=0.0))
        if not largest <= parameters.bound * (1 + _SLACK):  # so that NaN is refused too
            raise ValueError(
                f"a value of magnitude {largest} does not fit ±{parameters.bound}: clip first"
            )
        padded = np.zeros(parameters.slots)
        np.divide(block, parameters.bound, out=padded[: block.size])
        yield ts.ckks_vector(context, padded.tolist()).serialize()


def pack(chunks: Iterable[Chunk]) -> bytes:
    """Chunks as one byte string: each with its length in 4 bytes before it."""
    return b"".join(part for chunk in chunks for part in (_LENGTH.pack(len(chunk)), chunk))


def unpack(
    packed: Chunk, length: int, parameters: Parameters, site: str = "a site"
) -> list[memoryview]:
    """The chunks of a vector of ``length`` values, as views: nothing is parsed, nothing copied.

    Raises UpdateRejected for another number of chunks, or one of impossible size.
    """
    view, chunks = memoryview(packed), list[memoryview]()
    begin, most = 0, parameters.chunks(length)
    while begin < len(view) and len(chunks) <= most:
        start = begin + _LENGTH.size
        size = _LENGTH.unpack_from(view, begin)[0] if start <= len(view) else 0
        begin = start + size
        if begin > len(view):
            raise UpdateRejected(f"{site}: the ciphertexts are cut off")
        _check_size(view[start:begin], parameters, site)
        chunks.append(view[start:begin])
    if len(chunks) != most:
        raise UpdateRejected(f"{site}: other than the {most} ciphertexts of {length} values")
    return chunks


class Sum:
    """The sum of the sites' ciphertexts. Its size does not depend on how many were added.

    ``length``: values of a site's vector. ``context``: public or secret.
    """

    def __init__(self, context: bytes, parameters: Parameters, length: int) -> None:
        self._context = ts.context_from(context, n_threads=1)
        self._parameters = parameters
        self._total: list[ts.CKKSVector] = []
        self._length = length
        self.n_sites = 0

    def add(self, chunks: Sequence[Chunk], site: str = "a site") -> None:
        """Add one site's vector, whole or not at all.

        Raises UpdateRejected for what is not a vector of fresh-looking ciphertexts of the agreed
        parameters, and for one site more than a sum may have.
        """
        if len(chunks) != self._parameters.chunks(self._length):
            raise UpdateRejected(
                f"{site}: {len(chunks)} ciphertexts where {self._length} values take "
                f"{self._parameters.chunks(self._length)}"
            )
        if self.n_sites == self._parameters.summands:
            raise UpdateRejected(f"{site}: the sum holds its {self.n_sites} sites already")
        if self.n_sites == 0:
            self._total = [self._parse(chunk, site) for chunk in chunks]
        else:
            self._add(chunks, site)
        self.n_sites += 1

    def _add(self, chunks: Sequence[Chunk], site: str) -> None:
        """One chunk at a time; taken out again where a later one is bad, which leaves no trace."""
        added = 0
        try:
            for total, chunk in zip(self._total, chunks, strict=True):
                total.add_(self._parse(chunk, site))
                added += 1
        except UpdateRejected:
            for total, chunk in zip(self._total[:added], chunks[:added], strict=True):
                total.sub_(self._parse(chunk, site))
            raise

    def _parse(self, chunk: Chunk, site: str) -> ts.CKKSVector:
        return parse(chunk, self._context, self._parameters, site)

    def chunks(self) -> Iterator[bytes]:
        """The sum's ciphertexts, one at a time. Raises ValueError where no site was added."""
        if self.n_sites == 0:
            raise ValueError("no site's vector was added")
        for total in self._total:
            yield total.serialize()


def decrypt(
    chunks: Iterable[Chunk], secret_context: bytes, parameters: Parameters, length: int
) -> Values:
    """The values under the ciphertexts, (length,), **with the noise that gives the key away**.

    Whoever sees these beside the ciphertexts computes the key (Li and Micciancio 2021,
    https://eprint.iacr.org/2020/1533): they stay at the site, and ``release`` is for all others.
    Raises UpdateRejected for malformed chunks.
    """
    context = ts.context_from(secret_context, n_threads=1)
    wanted = parameters.chunks(length)
    values, count = np.empty(wanted * parameters.slots), 0
    for chunk in chunks:
        if count == wanted:
            raise UpdateRejected(f"the sum: more than the {wanted} ciphertexts of {length} values")
        begin = count * parameters.slots
        vector = parse(chunk, context, parameters, "the sum")
        values[begin : begin + parameters.slots] = vector.decrypt()
        count += 1
    if count != wanted:
        raise UpdateRejected(f"the sum: {count} ciphertexts where {length} values take {wanted}")
    values *= parameters.bound
    return values[:length]


def parse(chunk: Chunk, context: ts.Context, parameters: Parameters, site: str) -> ts.CKKSVector:
    """One ciphertext, checked: of these parameters and not transparent (a plain text in disguise).

    The size is looked at before a byte is parsed. A few bytes of Zstandard can stand for gigabytes:
    SEAL 4.3 (TenSEAL 0.3.18) unpacks no more than a ciphertext has, SEAL 4.1 (0.3.16) all of it,
    so do not use that. Raises UpdateRejected.
    """
    _check_size(chunk, parameters, site)
    try:
        vector = ts.ckks_vector_from(context, bytes(chunk))
        parts = vector.ciphertext()
    except Exception as error:  # whatever SEAL, protobuf and the bindings throw at bad bytes
        raise UpdateRejected(f"{site}: not a ciphertext ({error})") from error
    if len(parts) != 1 or vector.size() != parameters.slots:
        raise UpdateRejected(f"{site}: a ciphertext of other than {parameters.slots} values")
    (part,) = parts
    agreed = (
        part.size() == 2
        and part.poly_modulus_degree() == parameters.poly_modulus_degree
        and part.coeff_modulus_size() == len(parameters.coeff_mod_bit_sizes) - 1
        and math.isclose(part.scale, parameters.scale, rel_tol=1e-12)
    )
    if not agreed:
        raise UpdateRejected(f"{site}: a ciphertext of other parameters than agreed")
    if part.is_transparent():
        raise UpdateRejected(f"{site}: a ciphertext that hides nothing")
    return vector


def _check_size(chunk: Chunk, parameters: Parameters, site: str) -> None:
    if not 0 < len(chunk) <= parameters.chunk_bytes + _HEADERS:
        raise UpdateRejected(
            f"{site}: a ciphertext of {len(chunk)} bytes; it has at most "
            f"{parameters.chunk_bytes + _HEADERS}"
        )
