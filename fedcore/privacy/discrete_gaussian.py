"""The discrete Gaussian: whole numbers y with probability proportional to exp(−y²/2s²).

Noise for sums of whole numbers: what is added to a sum on a grid lies on the grid, so that no low
bit of a floating-point number tells on what was added to (Canonne, Kamath and Steinke 2020,
https://arxiv.org/abs/2004.00010). It is as private as the Gaussian of the same s, and nearly so is
a sum of several (Kairouz, Liu and Steinke 2021, https://arxiv.org/abs/2102.06387).

The sampler is exact: every decision compares whole random numbers with whole numbers, none is a
float. It is that of Karney 2016 (https://arxiv.org/abs/1303.6257, algorithm D for integers; the
coins with probability exp(−γ) are von Neumann's, as in Canonne et al., algorithm 1), for many
values at a time: y = ±(k·s + j), with k from exp(−k²/2), j even below s, and accepted with
probability exp(−j(2ks + j)/2s²). OpenDP's sampler draws from the operating system alone and cannot
draw the same again under a key, which a client that was killed must.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Integers = NDArray[np.int64]

LARGEST = 1 << 40
"""Of s. Below it no product overflows, but for a k or a run of coins that is as likely as
2^-1000."""

_BLOCK = 1 << 15
_TOP = np.uint64(2**64 - 1)


def sample(stddev: int, count: int, key: bytes) -> Integers:
    """``count`` independent values of parameter s = ``stddev``, the same for the same 32-byte key.

    s is the standard deviation, to 10⁻⁷. Raises ValueError for an s outside
    [1, ``LARGEST``].

    >>> drawn = sample(1000, 10_000, bytes(32))
    >>> drawn.dtype, bool(abs(drawn.std() / 1000 - 1) < 0.05)
    (dtype('int64'), True)
    """
    if not 1 <= stddev <= LARGEST:
        raise ValueError(f"stddev is {stddev}; it must lie in [1, {LARGEST}]")
    coins, out, filled = _Coins(key), np.empty(count, np.int64), 0
    while filled < count:
        wanted = min(count - filled, _BLOCK)
        block = _accepted(stddev, 2 * wanted + 64, coins)[:wanted]  # 0.49 of them are accepted
        out[filled : filled + block.size] = block
        filled += block.size
    return out


def _accepted(s: int, proposals: int, coins: _Coins) -> Integers:
    """The values that are accepted of so many proposals, in the order in which they were drawn."""
    k = coins.runs(proposals)
    large = np.flatnonzero(k > 1)
    refused = coins.runs(large.size) < k[large] * (k[large] - 1)
    k = np.delete(k, large[refused])  # so that k has probability exp(−k/2) · exp(−k(k−1)/2)
    j = coins.below(s, k.size)
    kept = np.ones(k.size, bool)
    for turn in range(int(k.max(initial=0)) + 1):  # exp(−γ) as a product of k + 1 equal factors
        trying = np.flatnonzero(kept & (k >= turn))
        kept[trying] = coins.exp(_share_of_gamma(s, k[trying], j[trying], coins), trying.size)
    magnitude = (k * s + j)[kept]
    positive = coins.below(2, magnitude.size) == 1
    signed = np.where(positive, magnitude, -magnitude)
    found: Integers = signed[(magnitude > 0) | positive]  # else 0 would count twice
    return found


Trial = Callable[[Integers, int], Integers]
"""Those of the coins of these numbers that show heads, which they do with probability γ/n."""


def _share_of_gamma(s: int, k: Integers, j: Integers, coins: _Coins) -> Trial:
    """γ = j(2ks + j)/2s² over k + 1, at most 1: j/s times (2ks + j)/s(2k + 2)."""

    def heads(which: Integers, n: int) -> Integers:
        left = which[coins.below(s, which.size) < j[which]]
        of, among = 2 * k[left] * s + j[left], s * (2 * k[left] + 2) * n
        return left[coins.below(among, left.size) < of]

    return heads


class _Coins:
    """Random choices with exact probabilities, from the ChaCha20 stream under one key."""

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(algorithms.ChaCha20(key=key, nonce=bytes(16)), mode=None)
        self._stream = cipher.encryptor()

    def below(self, limit: int | Integers, count: int) -> Integers:
        """Whole numbers below the limit, or below each of the limits, every one as likely."""
        limits = np.asarray(limit, np.uint64)
        words = self._words(count)
        # The last 2^64 mod limit words would make the first remainders likelier: they are drawn
        # again. Only words above 2^64 − limit can be among them.
        near = np.flatnonzero(words > _TOP - limits)
        while near.size:
            of = limits if limits.ndim == 0 else limits[near]
            near = near[words[near] > _TOP - (_TOP - of + np.uint64(1)) % of]
            words[near] = self._words(near.size)
        return (words % limits).astype(np.int64)

    def exp(self, heads: Trial, count: int) -> NDArray[np.bool_]:
        """``count`` coins that show heads with probability exp(−γ), 0 ≤ γ ≤ 1, by such trials.

        Trials with γ/1, γ/2, … until one fails: the number of the one that failed is odd with
        probability 1 − γ + γ²/2! − …
        """
        result, going, n = np.ones(count, bool), np.arange(count), 1
        while going.size:
            going = heads(going, n)
            n += 1
            result[going] = n % 2 == 1
        return result

    def runs(self, count: int) -> Integers:
        """How often coins of exp(−1/2) show heads before each of ``count`` tails."""
        tails, tossed = np.empty(0, np.int64), 0
        while tails.size < count:
            size = 3 * (count - tails.size) + 64
            shown = self.exp(self._half, size)
            tails = np.concatenate([tails, tossed + np.flatnonzero(~shown)])
            tossed += size
        found: Integers = np.diff(tails[:count], prepend=-1) - 1
        return found

    def _half(self, which: Integers, n: int) -> Integers:
        heads: Integers = which[self.below(2 * n, which.size) == 0]
        return heads

    def _words(self, count: int) -> NDArray[np.uint64]:
        words = np.empty(count, "<u8")
        self._stream.update_into(bytes(8 * count), words.view(np.uint8).data)
        return words.astype(np.uint64, copy=False)
