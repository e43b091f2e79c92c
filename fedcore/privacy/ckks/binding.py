"""What a site checks before it opens a sum: that it is the sum of enough sites' vectors.

A server that asks for the "sum" of one ciphertext would read that site's vector. Signed digests of
the ciphertexts bind nothing by themselves: a site that knows them must fetch all n vectors and add
them itself, n times the bytes of the sum, and looking at a few chunks only leaves the server the
others. Instead each site sends 32 bytes with its vector v, by a key that only sites have:

    T = (round(<r_k, v> / unit) + pad_k) mod 2^64,    k = 1 … 4

r_k uniform in [−1, 1)^d, the same at all sites, pad_k a one-time pad of the site; both from a
ChaCha20 stream under the key and the round's context. The server, to which T is uniform noise, adds
the tags modulo 2^64. The opener takes the pads of the sites that the server names away and compares
with <r_k, decrypted sum>. This is a homomorphic message authentication code (Agrawal and Boneh
2009, https://doi.org/10.1007/978-3-642-01957-9_18) over the decrypted values rather than the
ciphertexts, so it holds whatever was done to those.

**Bound**: what is opened differs from the sum of what exactly the named sites sent by a vector δ
with |<r_k, δ>| ≤ tolerance for all k. r_k is secret, so a δ of the server's making passes with
probability at most (√2 · tolerance / ‖δ‖)^4, as the density of <r, δ> is at most 1/(√2 ‖δ‖) (Ball
1986, https://doi.org/10.1090/S0002-9939-1986-0840631-0). The tolerance follows from the
ciphertexts' own noise: 5·10^-7 for a million values of 10 sites, so leaving out a site whose vector
has norm 0.01 passes once in 10^16 attempts, and each attempt takes an order of its own.

**Not bound**: that sites are honest, as one site's key forges any tag, and a site that sends what
its tag does not fit makes the round fail without being named. That two orders name the same sites:
the sum with a site less the sum without is that site's vector. So the opener must also see
signatures of more than half of the roster over one set of survivors (the consistency check of the
protocol with masks), open once a context, and itself check that the sites are in the roster.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedcore.errors import OrderRefused, UpdateRejected
from fedcore.params import BLOCK
from fedcore.privacy.ckks.keys import derive
from fedcore.privacy.ckks.parameters import Parameters, sum_deviation

TAG_BYTES = 32
_PROJECTIONS = 4
_MODULUS = 1 << 64
_TAIL = 8.0


def tag(
    values: NDArray[Any], secret_context: bytes, parameters: Parameters, context: bytes, site: str
) -> bytes:
    """What ``site`` sends with its encrypted 1-D values. Once a context: a pad hides one."""
    pads = _pads(secret_context, context, site)
    sums = _projections(values, secret_context, context)
    units = (round(value / _unit(parameters)) for value in sums)
    return _bytes((unit + pad) % _MODULUS for unit, pad in zip(units, pads, strict=True))


def add_tags(tags: Iterable[bytes]) -> bytes:
    """The tag of the sum, for the server. Raises UpdateRejected for what is no tag."""
    totals = [0] * _PROJECTIONS
    for one in tags:
        if len(one) != TAG_BYTES:
            raise UpdateRejected(f"a tag of {len(one)} bytes; it has {TAG_BYTES}")
        totals = [
            (total + word) % _MODULUS for total, word in zip(totals, _words(one), strict=True)
        ]
    return _bytes(totals)


def check_sum(
    decrypted: NDArray[np.float64],
    tag_sum: bytes,
    sites: Collection[str],
    threshold: int,
    secret_context: bytes,
    parameters: Parameters,
    context: bytes,
) -> None:
    """Raises OrderRefused unless ``decrypted`` is the sum of the vectors of just these sites, and
    they are ``threshold`` or more."""
    if len(set(sites)) != len(sites) or not threshold <= len(sites) <= parameters.summands:
        raise OrderRefused(
            f"asked to open the sum of {sorted(sites)}: {threshold} to {parameters.summands} "
            "different sites are wanted, so that no site's update shows"
        )
    if len(tag_sum) != TAG_BYTES:
        raise OrderRefused(f"asked to open a sum with a tag of {len(tag_sum)} bytes")
    expected = list(_words(tag_sum))
    for site in sites:
        pads = _pads(secret_context, context, site)
        expected = [(word - pad) % _MODULUS for word, pad in zip(expected, pads, strict=True)]
    found = _projections(decrypted, secret_context, context)
    unit = _unit(parameters)
    tolerance = _tolerance(parameters, len(sites), decrypted.size) / unit
    for value, word in zip(found, expected, strict=True):
        away = (round(value / unit) - word + _MODULUS // 2) % _MODULUS - _MODULUS // 2
        if not abs(away) <= tolerance:
            raise OrderRefused(
                f"asked to open what is not the sum of the updates of {sorted(sites)}: the server "
                "left some out, added others or changed them"
            )


def _projections(
    values: NDArray[Any], secret_context: bytes, context: bytes
) -> NDArray[np.float64]:
    """<r_k, values> for each k, in float64, block by block."""
    key = derive(secret_context, b"projections", context)
    stream = Cipher(algorithms.ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    sums = np.zeros(_PROJECTIONS)
    for begin in range(0, values.size, BLOCK):
        block = values[begin : begin + BLOCK].astype(np.float64)
        drawn = np.frombuffer(stream.update(bytes(4 * _PROJECTIONS * block.size)), dtype="<i4")
        sums += drawn.reshape(_PROJECTIONS, -1) @ block
    scaled: NDArray[np.float64] = sums * 2.0**-31
    return scaled


def _tolerance(parameters: Parameters, n_sites: int, length: int) -> float:
    """Of <r, values>: the ciphertexts' noise times the deviation of r, roundings of the tags, and
    those of float64 in sums of ``length`` values."""
    noise = sum_deviation(parameters.poly_modulus_degree, n_sites) * parameters.unit
    arithmetic = 2.0**-52 * n_sites * parameters.bound * length
    return _TAIL * noise * math.sqrt(length / 3) + n_sites * _unit(parameters) + arithmetic


def _unit(parameters: Parameters) -> float:
    return parameters.bound * 2.0**-40


def _pads(secret_context: bytes, context: bytes, site: str) -> tuple[int, ...]:
    return _words(derive(secret_context, b"pad", context, site.encode(), length=TAG_BYTES))


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, TAG_BYTES, 8))


def _bytes(words: Iterable[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)
