"""Gaussian noise on the sums of a round, and where its randomness comes from.

The Gaussian mechanism on the weighted **sum** (DP-FedAvg, McMahan et al. 2018,
https://arxiv.org/abs/1710.06963): noise first, then the division by the weights, which is
post-processing.

Limits of the arithmetic: the guarantee is proved for real numbers. Floating-point noise lies on an
uneven grid, and whoever sees enough low bits of one noisy value may rule out some inputs (Mironov
2012, https://doi.org/10.1145/2382196.2382264, for Laplace; Jin et al. 2022,
https://arxiv.org/abs/2112.05307, for Gaussian). Here noise is added in float64 and only the
quotient rounded to float32 is released, which removes 29 of 53 low bits but proves nothing;
integer noise on a fixed-point grid is what closes this.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from scipy.special import ndtri

from fedcore import seeds

Values = NDArray[np.float64]
Normals = Callable[[int], Values]
"""``normals(n)`` draws the next n independent standard normal values, float64."""


def stddev(noise_multiplier: float, clip_norm: float, max_weight: float) -> float:
    """Standard deviation of the noise on each coordinate of the sum.

    A site adds weight · clipped update, at most ``clip_norm · max_weight`` in L2 norm; replacing
    that by zero (zero-out adjacency) moves the sum by no more: this is the sensitivity, and the
    noise is ``noise_multiplier`` times that.

    >>> stddev(noise_multiplier=1.5, clip_norm=2.0, max_weight=1.0)
    3.0
    """
    return noise_multiplier * clip_norm * max_weight


def add_noise(sums: Mapping[str, Values], stddev: float, normals: Normals) -> dict[str, Values]:
    """The sums with independent noise on every coordinate, drawn in name order.

    Pass only the modules that somebody trained: others are not released.
    """
    return {
        name: sums[name] + stddev * normals(sums[name].size).reshape(sums[name].shape)
        for name in sorted(sums)
    }


def os_normals() -> Normals:
    """Noise for production: a ChaCha20 key stream under a fresh key of the operating system.

    Not a NumPy generator: those are statistical, and from some of their output the rest, the
    noise itself, can be computed. Each 64 bits give one value: 63 of them a point of (0, ½], which
    the inverse normal distribution function maps to a negative half-normal, and one its sign. So
    tails reach 9.2 standard deviations and are symmetric.
    """
    return keyed_normals(os.urandom(32), "noise")


def keyed_normals(key: bytes, purpose: str) -> Normals:
    """The same under a ``key`` of 32 bytes, so that who holds it can draw the same noise again.

    Streams of other purposes under the same key have nothing to do with each other.
    """
    words = _keyed_words(key, purpose)
    return lambda count: to_normals(words(count))


def keyed_uniforms(key: bytes, purpose: str) -> Normals:
    """As ``keyed_normals``, values uniform in [0, 1): the upper 53 bits of each word."""
    words = _keyed_words(key, purpose)
    return lambda count: (words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _keyed_words(key: bytes, purpose: str) -> Callable[[int], NDArray[np.uint64]]:
    """``words(n)`` gives the next n 64-bit words of a ChaCha20 key stream."""
    own = hmac.digest(key, purpose.encode(), "sha256")
    stream = Cipher(algorithms.ChaCha20(key=own, nonce=bytes(16)), mode=None).encryptor()
    return lambda count: np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def to_normals(bits: NDArray[np.uint64]) -> Values:
    """Uniform 64-bit words → standard normal values, by inversion; never infinite.

    >>> to_normals(np.array([0, 1, 2**64 - 1], np.uint64)).round(3).tolist()
    [-9.155, 9.155, 0.0]
    """
    below_half = ((bits >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    half_normal: Values = -ndtri(below_half)
    return np.where(bits & np.uint64(1), half_normal, -half_normal) + 0.0  # no negative zero


def seeded_normals(seed: int, *path: str | int) -> Normals:
    """Noise that can be drawn again, for comparisons and tests: who knows the seed subtracts it."""
    return seeds.generator(seed, "noise", *path).standard_normal
