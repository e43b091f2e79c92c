"""Fixed point: real values as integers modulo 2^16, 2^32 or 2^64, so that masks can hide them.

A sum of such integers is exact, whatever the order, and what is added modulo 2^word and taken away
again leaves no trace: floating point has neither property.

>>> where = grid(bits=20, bound=1.0, summands=10)
>>> where.dtype, round(where.step, 9)
(dtype('uint32'), 1.907e-06)
>>> ones = [encode(np.ones(2, np.float32), where, key=bytes(32)) for _ in range(10)]
>>> decode(np.add.reduce(ones, dtype=where.dtype), where).tolist()
[10.0, 10.0]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedcore.params import BLOCK, Params, blocks, module_of, modules

Words = NDArray[np.unsignedinteger[Any]]
Values = NDArray[np.float64]

_WORDS = (16, 32, 64)
_EXACT = 53  # bits of a float64's significand
_SLACK = 2.0**-23  # one float32 rounding, such as that of a value clipped to exactly the bound
_ZEROS = memoryview(bytes(4 * BLOCK))


@dataclass(frozen=True)
class Grid:
    """Values in [−bound, bound] as integers of ``bits`` bits, in words that hold ``summands``.

    Let M = 2^(bits−1) − 1. A value v becomes v/step, step = bound/M, rounded to one of its two
    neighbours among the integers: of magnitude at most M, because |v/step| ≤ M and M is an
    integer. The sum of n ≤ ``summands`` of them has magnitude at most n·M < n·2^(bits−1) ≤
    2^(word−1), as word ≥ bits + ⌈log2 summands⌉. So it lies in the centred range of the modulus
    2^word and is read off there without error.

    ``noise``: standard deviation, in units, of what each summand adds for privacy. Then the word
    has room for 12 times that of the sum too: it wraps round with a probability below 10⁻³².
    """

    bits: int
    bound: float
    summands: int
    noise: int = 0

    @property
    def word(self) -> int:
        """Bits of a word: the smallest of 16, 32 and 64 that holds the sum."""
        return next(word for word in _WORDS if word >= self.needed)

    @property
    def needed(self) -> int:
        """Bits that the sum can have."""
        if self.noise == 0:
            return self.bits + (self.summands - 1).bit_length()
        noise = 12 * self.noise * (math.isqrt(self.summands - 1) + 1)
        return 1 + (self.summands * self.largest + noise).bit_length()

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        return np.dtype(f"uint{self.word}")

    @property
    def modulus(self) -> int:
        return 1 << self.word

    @property
    def largest(self) -> int:
        """M, the integer that stands for ``bound``."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """The value of one unit."""
        return self.bound / self.largest


def grid(bits: int, bound: float, summands: int, noise: int = 0) -> Grid:
    """The grid for sums of at most ``summands`` values of magnitude at most ``bound``, each with
    ``noise`` (see ``Grid``).

    Raises ValueError where no word holds the sum, or float64 not all ``bits``.
    """
    if summands < 1 or not 0 < bound < np.inf:
        raise ValueError(
            f"{summands} summands of at most {bound}: both must be positive and finite"
        )
    if not 2 <= bits <= _EXACT:
        raise ValueError(f"bits is {bits}; a sign and a magnitude in float64 take 2 to {_EXACT}")
    made = Grid(bits, float(bound), summands, noise)
    if made.needed > _WORDS[-1]:
        raise ValueError(
            f"the sum of {summands} values of {bits} bits needs {made.needed} bits, and a word has "
            f"64; set bits to {bits - made.needed + 64} or fewer, or make the cohort smaller"
        )
    return made


def encode(values: NDArray[Any], grid: Grid, key: bytes, out: Words | None = None) -> Words:
    """The values as words, flat in C order; into ``out`` where given.

    Stochastic rounding: v/step goes up with the probability of its fractional part, so the
    expectation is v (to 2^-33 of a step). The randomness is the ChaCha20 stream under the
    32-byte ``key``, so the same key gives the same words again. Raises ValueError for a value out
    of range or not finite; one above the bound by a rounding error of float32 counts as the bound.
    """
    words = np.empty(values.size, grid.dtype) if out is None else out
    _Rounding(key).write(values, grid, 1.0, words)
    return words


def decode(total: Words, grid: Grid) -> Values:
    """The sum of values whose words add up to ``total``, in float64. ValueError for other words."""
    if total.dtype != grid.dtype:
        raise ValueError(f"words of {total.dtype}; {grid.dtype} is wanted")
    centred = total.view(f"int{grid.word}").astype(np.float64)
    centred /= grid.largest  # not times step: so a sum of whole bounds comes out exactly
    centred *= grid.bound
    return centred


def length(like: Params) -> int:
    """Words of a flattened update: a word a parameter, and one a module for its weight."""
    return sum(array.size for array in like.values()) + len(modules(like))


def flatten(
    update: Params,
    weights: Mapping[str, float],
    like: Params,
    grid: Grid,
    key: bytes,
    scale: float = 1.0,
) -> Words:
    """One vector, ``length(like)`` words: weight · ``scale`` · update, then the weights.

    All params of ``like`` in name order, zeros for modules that ``update`` lacks; then the
    weights in [0, 1] in module order. ``scale`` is the clipping factor. Products are formed in
    float64 before they are rounded. Every module of ``update`` needs a weight, and only those may
    have one: else, and as ``encode`` does, raises ValueError.
    """
    if set(modules(update)) != set(weights):
        raise ValueError(f"weights for {sorted(weights)}, an update of {list(modules(update))}")
    rounding = _Rounding(key)
    words = np.zeros(length(like), grid.dtype)
    begin = 0
    for name in sorted(like):
        end = begin + like[name].size
        if name in update:
            if update[name].size != like[name].size:
                raise ValueError(f"{name!r} has shape {update[name].shape}, not {like[name].shape}")
            factor = weights[module_of(name)] * scale
            rounding.write(update[name], grid, factor, words[begin:end])
        begin = end
    told = np.array([weights.get(module, 0.0) for module in modules(like)])
    if (told < 0).any():
        raise ValueError(f"negative weight in {dict(weights)}; weights lie in [0, 1]")
    rounding.write(told, weight_grid(grid), 1.0, words[begin:])
    return words


def unflatten(total: Words, like: Params, grid: Grid) -> tuple[dict[str, Values], dict[str, float]]:
    """A sum of flattened updates → (sums by name, in the shapes of ``like``; weights by module).

    A module that nobody trained, its weights adding up to 0, is in neither. Raises ValueError for
    a vector of another length or type.
    """
    if total.shape != (length(like),) or total.dtype != grid.dtype:
        raise ValueError(
            f"a sum of {total.shape} {total.dtype}; ({length(like)},) {grid.dtype} is wanted"
        )
    named = modules(like)
    told = decode(total[-len(named) :], weight_grid(grid)) if named else ()
    weights = {module: float(w) for module, w in zip(named, told, strict=True) if w != 0}
    sums, begin = {}, 0
    for name in sorted(like):
        end = begin + like[name].size
        if module_of(name) in weights:
            sums[name] = decode(total[begin:end], grid).reshape(like[name].shape)
        begin = end
    return sums, weights


def weight_grid(of: Grid) -> Grid:
    """How weights in [0, 1] travel beside values on ``of``: with all bits that the word holds."""
    free = of.word - (of.summands - 1).bit_length()
    return Grid(min(free, _EXACT), 1.0, of.summands)


class _Rounding:
    """Stochastic rounding with the randomness of one key, drawn value after value."""

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(algorithms.ChaCha20(key=key, nonce=bytes(16)), mode=None)
        self._stream = cipher.encryptor()
        self._bits = np.empty(BLOCK, "<u4")
        self._scaled = np.empty(BLOCK)
        self._chance = np.empty(BLOCK)

    def write(self, values: NDArray[Any], grid: Grid, factor: float, out: Words) -> None:
        """``factor`` · values as words into ``out``."""
        signed = out.view(f"int{grid.word}")
        for index, block in enumerate(blocks(values)):
            begin = index * BLOCK
            self._write_block(block, grid, factor, signed[begin : begin + block.size])

    def _write_block(
        self, block: NDArray[Any], grid: Grid, factor: float, out: NDArray[Any]
    ) -> None:
        size = block.size
        bits, scaled, chance = self._bits[:size], self._scaled[:size], self._chance[:size]
        largest = max(float(block.max(initial=0)), -float(block.min(initial=0))) * abs(factor)
        if not largest <= grid.bound * (1 + _SLACK):  # so that NaN is refused too
            raise ValueError(
                f"a value of magnitude {largest} does not fit the range ±{grid.bound}: clip first"
            )
        np.multiply(block, factor * (grid.largest / grid.bound), out=scaled, dtype=np.float64)
        self._stream.update_into(_ZEROS[: 4 * size], bits.view(np.uint8).data)
        np.multiply(bits, 2.0**-32, out=chance)
        scaled += chance
        np.floor(scaled, out=scaled)
        if largest > grid.bound * (1 - _SLACK):
            np.clip(scaled, -grid.largest, grid.largest, out=scaled)
        np.copyto(out, scaled, casting="unsafe")
