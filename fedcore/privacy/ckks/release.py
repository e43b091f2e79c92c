"""What leaves the site that opens a sum: checked, with noise on it, and rounded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedcore.params import BLOCK
from fedcore.privacy.ckks.binding import check_sum
from fedcore.privacy.ckks.ciphertexts import Chunk, Values, decrypt
from fedcore.privacy.ckks.keys import derive
from fedcore.privacy.ckks.parameters import Parameters, flood_deviation
from fedcore.privacy.gaussian import to_normals


def release(
    chunks: Iterable[Chunk],
    length: int,
    tag_sum: bytes,
    sites: Collection[str],
    threshold: int,
    secret_context: bytes,
    parameters: Parameters,
    context: bytes,
) -> Values:
    """Open a sum for the server: (length,) float64, within ``error_bound`` of the true sum.

    Raises OrderRefused where it is not the sum of the vectors of ``sites``, ``threshold`` or more
    of them (``binding``), and UpdateRejected for malformed ciphertexts.
    """
    decrypted = decrypt(chunks, secret_context, parameters, length)
    check_sum(decrypted, tag_sum, sites, threshold, secret_context, parameters, context)
    return flooded(decrypted, len(sites), secret_context, parameters)


def flooded(
    decrypted: Values, n_sites: int, secret_context: bytes, parameters: Parameters
) -> Values:
    """Decrypted values with Gaussian noise, rounded to a grid: safe to show with the ciphertexts.

    A decrypted value holds the sum's error e, and ciphertext − (m + e) is the key times what all
    can see: two exact results and the key is out (Li and Micciancio 2021,
    https://eprint.iacr.org/2020/1533). Here m + e + f is released, f with ``FLOOD`` = 2^10 times
    the deviation of e. Even for a server that knows m, this is a noisy hint on e: finding the key
    stays at least as hard as ring-LWE with an error of variance σ² / (2 (1 + q/FLOOD²)) where q
    releases touch the same ciphertexts (Hint-LWE: Kim, Lee, Seo, Song 2023,
    https://eprint.iacr.org/2023/623, Theorem 1). For every q ≪ 2^20 that is σ/√2, half a bit of
    the modulus, of which these parameters have more than 40 to spare; it is a computational
    guarantee (for Gaussian errors, which SEAL's binomial ones stand for), not the statistical one
    of flooding by 2^30 and more (Li, Micciancio, Schultz, Sorrell 2022,
    https://eprint.iacr.org/2022/816), for which there is no room. Outside the argument is what the
    encoder's rounding says of the values: it is 2^-13 of f.

    The noise is a function of the key and the values, so asking again gives the same answer and
    averages nothing away. Rounding to a power of two below f's deviation is post-processing; it
    takes the low bits of floating point out of what is sent.
    """
    deviation = flood_deviation(parameters.poly_modulus_degree, n_sites) * parameters.unit
    step = 2.0 ** math.floor(math.log2(deviation))
    seed = hashlib.sha256(np.ascontiguousarray(decrypted, dtype="<f8").data).digest()
    key = derive(secret_context, b"flood", seed)
    stream = Cipher(algorithms.ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    out = np.empty(decrypted.size)
    for begin in range(0, decrypted.size, BLOCK):
        block = decrypted[begin : begin + BLOCK]
        bits: NDArray[np.uint64] = np.frombuffer(stream.update(bytes(8 * block.size)), dtype="<u8")
        out[begin : begin + BLOCK] = block + deviation * to_normals(bits)
    out /= step
    np.rint(out, out=out)
    out *= step
    return out + 0.0  # no negative zero
