"""Values as whole numbers of few bits, with a step for each block of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.compression import rotation
from fedcore.compression.codec import Arrays, Coded, Shapes, Turn, checked, joined, parted, size_of
from fedcore.compression.packing import Bytes, pack, unpack, width_of
from fedcore.params import FloatArray, Params

BLOCK = 1024
"""Values that share a step, and that one rotation mixes."""

_GROUP = 256  # blocks at a time, which fit the processor's cache

_BEST_STEPS = (1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308)
"""By bits: the uniform steps that fit a standard normal best (Max 1960, Table II)."""


@dataclass(frozen=True)
class Quantise:
    """2^bits equal steps around zero. Blocks of 1024 values have a step each.

    ``unbiased``: a value goes to one of its two neighbours at random such that the expectation is
    the value, and the steps reach the largest of the block (Suresh et al. 2017, Section 2.2): for
    updates that nothing else makes good. The error of a value is at most a step.

    Else to the nearest, with steps that fit the block best, so that the error is never larger than
    the block itself (as in DRIVE, Vargaftik et al. 2021, https://arxiv.org/abs/2105.08339): biased,
    but several times closer, for where feedback carries the error on.

    ``rotate``: mix the block first (``rotation``), where few values are much larger than the rest.
    """

    bits: int
    rotate: bool = False
    unbiased: bool = True
    additive: bool = False

    def encode(self, values: Params, turn: Turn) -> Coded:
        vector = joined(values)
        frame = _Frame(vector.size)
        signs, chance = self._signs(turn, frame), turn.own("quantise")
        codes, steps = np.empty(frame.padded, np.uint8), np.empty(frame.blocks, np.float32)
        for group in frame.groups():
            columns = frame.columns(vector, group)
            if signs is not None:
                rotation.rotate(columns, signs)
            coded = self._random(columns, chance) if self.unbiased else self._nearest(columns)
            codes[frame.places(group)], steps[group] = coded[0].reshape(-1), coded[1]
        return Coded({}, {"codes": pack(codes, width_of(self.bits)), "steps": steps})

    def shapes(self, like: Shapes, side: Arrays, _turn: Turn) -> Shapes:
        frame = _Frame(size_of(like))
        packed = frame.padded * width_of(self.bits) // 8
        wanted = {"codes": (np.uint8, (packed,)), "steps": (np.float32, (frame.blocks,))}
        checked(side, wanted, "quantise")
        return {}

    def decode(self, _values: Arrays, side: Arrays, like: Shapes, turn: Turn) -> dict[str, Any]:
        frame, width = _Frame(size_of(like)), width_of(self.bits)
        signs, vector = self._signs(turn, frame), np.empty(size_of(like), np.float32)
        middle = np.float32(((1 << self.bits) - 1) / 2)
        for group in frame.groups():
            places = frame.places(group)
            packed = side["codes"][places.start * width // 8 : places.stop * width // 8]
            columns = unpack(packed, width).reshape(frame.size, -1).astype(np.float32)
            columns -= middle
            columns *= side["steps"][group]
            if signs is not None:
                rotation.rotate_back(columns, signs)
            frame.put(vector, group, columns)
        return parted(vector, like)

    def _signs(self, turn: Turn, frame: _Frame) -> FloatArray | None:
        return rotation.signs(turn.shared("rotation"), frame.size) if self.rotate else None

    def _random(self, columns: FloatArray, chance: np.random.Generator) -> tuple[Bytes, FloatArray]:
        most = (1 << self.bits) - 1
        steps = np.maximum(columns.max(0), -columns.min(0)) * np.float32(2 / most)
        scaled = columns * _inverse(steps)
        scaled += np.float32(most / 2 + 2**-17)
        drawn = chance.integers(0, 1 << 16, columns.shape, np.uint16)
        scaled += np.multiply(drawn, np.float32(2**-16), dtype=np.float32)
        return _codes(np.floor(scaled, out=scaled), most), steps

    def _nearest(self, columns: FloatArray) -> tuple[Bytes, FloatArray]:
        most, middle = (1 << self.bits) - 1, np.float32(((1 << self.bits) - 1) / 2)
        power = np.einsum("ij,ij->j", columns, columns) / np.float32(len(columns))
        steps = np.sqrt(power) * np.float32(_BEST_STEPS[self.bits - 1])
        scaled = columns * _inverse(steps)
        scaled += np.float32(middle + 0.5)
        codes = _codes(np.floor(scaled, out=scaled), most)
        levels = np.subtract(codes, middle, out=scaled)
        # The step of least squares, given the codes: then the error is orthogonal to the levels.
        fitted = np.einsum("ij,ij->j", columns, levels) / np.einsum("ij,ij->j", levels, levels)
        return codes, fitted


@dataclass(frozen=True)
class _Frame:
    """How a vector of ``length`` values is cut into blocks, and these into groups.

    A group is (values of a block, blocks), so that what goes through all its blocks runs along the
    last axis. The last blocks are filled up with zeros.
    """

    length: int

    @property
    def size(self) -> int:
        """Values a block: fewer where all are fewer, but at least 8, so that bytes are full."""
        return min(BLOCK, max(8, 1 << (self.length - 1).bit_length())) if self.length else 8

    @property
    def blocks(self) -> int:
        return -(-self.length // self.size)

    @property
    def padded(self) -> int:
        return self.blocks * self.size

    def groups(self) -> Iterator[slice]:
        """The blocks, a group at a time."""
        for begin in range(0, self.blocks, _GROUP):
            yield slice(begin, min(begin + _GROUP, self.blocks))

    def places(self, group: slice) -> slice:
        """Where the values of a group lie."""
        return slice(group.start * self.size, group.stop * self.size)

    def columns(self, vector: FloatArray, group: slice) -> FloatArray:
        """A copy of the group, (size, blocks)."""
        places = self.places(group)
        filled = np.zeros(places.stop - places.start, np.float32)
        part = vector[places]
        filled[: part.size] = part
        return filled.reshape(self.size, -1)

    def put(self, vector: FloatArray, group: slice, columns: FloatArray) -> None:
        part = vector[self.places(group)]
        part[:] = columns.reshape(-1)[: part.size]


def _inverse(steps: FloatArray) -> FloatArray:
    """1 / step; 0 where a block is all zero, or too small for float32 to tell its steps apart."""
    tiny = np.finfo(np.float32).tiny
    return np.divide(np.float32(1), steps, out=np.zeros_like(steps), where=steps > tiny)


def _codes(scaled: FloatArray, most: int) -> NDArray[np.uint8]:
    return np.clip(scaled, 0, most, out=scaled).astype(np.uint8)
