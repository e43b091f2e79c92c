"""Fewer values: the largest, or a sample that everybody takes alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.compression.codec import Arrays, Coded, Shapes, Turn, checked, joined, parted, size_of
from fedcore.errors import UpdateRejected
from fedcore.params import FloatArray, Params

_SAMPLE = 1 << 17  # values that say how large the largest are
_PIECE = 1 << 18  # values at a time, which fit the processor's cache
_SKIP = 255


@dataclass(frozen=True)
class TopK:
    """The ``share`` of all values that are largest; the others count as 0.

    Exact up to 131,072 values. Of more, a sample tells the threshold, so that the share is met
    about (Lin et al. 2018, https://arxiv.org/abs/1712.01887, Section 3.1). Where the values are
    is told by the gaps between them, a byte each, of which the container makes about as many bits
    as their entropy (in Sattler et al. 2019, https://arxiv.org/abs/1903.02891, Golomb's code).
    """

    share: float
    additive: bool = False

    def encode(self, values: Params, _turn: Turn) -> Coded:
        vector = joined(values)
        threshold = self._threshold(vector)
        kept, gaps, last = [np.zeros(0, np.float32)], [np.zeros(0, np.uint8)], -1
        for begin in range(0, vector.size, _PIECE):
            piece = vector[begin : begin + _PIECE]
            places = np.flatnonzero(np.abs(piece) >= threshold)
            if places.size:
                kept.append(piece[places])
                gaps.append(_gaps(places, last - begin))
                last = begin + int(places[-1])
        return Coded({"kept": np.concatenate(kept)}, {"gaps": np.concatenate(gaps)})

    def shapes(self, _like: Shapes, side: Arrays, _turn: Turn) -> Shapes:
        (gaps,) = checked(side, {"gaps": (np.uint8, None)}, "top_k")
        return {"kept": (int(np.count_nonzero(gaps != _SKIP)),)}

    def decode(self, values: Arrays, side: Arrays, like: Shapes, _turn: Turn) -> dict[str, Any]:
        vector, places = np.zeros(size_of(like), np.float32), _places(side["gaps"])
        if places.size and places[-1] >= vector.size:
            raise UpdateRejected("top_k: a value lies beyond the last parameter")
        vector[places] = values["kept"]
        return parted(vector, like)

    def _threshold(self, vector: FloatArray) -> np.float32:
        """What the share of the magnitudes reaches; never 0, so that no zero is sent."""
        sample = np.abs(vector[:: -(-vector.size // _SAMPLE) or 1])
        wanted = min(max(1, round(self.share * sample.size)), sample.size)
        found = np.partition(sample, -wanted)[-wanted] if wanted else 0
        return max(np.float32(found), np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Subsample:
    """Every ``every``-th value, from another one on each round: all have their turn.

    Which ones, everybody knows, so sums of what is sent are what would be sent of the sums
    (Konečný et al. 2016, https://arxiv.org/abs/1610.05492, Section 2: random masks).
    """

    every: int
    additive: bool = True

    def encode(self, values: Params, turn: Turn) -> Coded:
        first = self._first(turn)
        kept = {
            name: np.ascontiguousarray(array.reshape(-1)[first :: self.every])
            for name, array in values.items()
        }
        return Coded(kept, {})

    def shapes(self, like: Shapes, side: Arrays, turn: Turn) -> Shapes:
        checked(side, {}, "subsample")
        first = self._first(turn)
        return {name: (len(range(first, size, self.every)),) for name, size in _sizes(like).items()}

    def decode(self, values: Arrays, _side: Arrays, like: Shapes, turn: Turn) -> dict[str, Any]:
        first, whole = self._first(turn), {}
        for name, size in _sizes(like).items():
            flat = np.zeros(size, values[name].dtype)
            flat[first :: self.every] = values[name]
            whole[name] = flat.reshape(like[name])
        return whole

    def _first(self, turn: Turn) -> int:
        cycle, place = divmod(turn.round_num, self.every)
        order = turn.always("subsample", cycle).permutation(self.every)
        return int(order[place])


def _sizes(like: Shapes) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in like.items()}


def _gaps(places: NDArray[np.int64], last: int) -> NDArray[np.uint8]:
    """How many values lie between a place and the one before it; 255 skips that many and goes on.

    >>> _gaps(np.array([0, 2, 400]), last=-1).tolist()
    [0, 1, 255, 142]
    """
    between = np.diff(places, prepend=last) - 1
    if between.max() < _SKIP:
        return between.astype(np.uint8)
    skips = between // _SKIP
    gaps = np.full(places.size + int(skips.sum()), _SKIP, np.uint8)
    gaps[np.cumsum(skips + 1) - 1] = between % _SKIP
    return gaps


def _places(gaps: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The inverse, for gaps from the first value on.

    >>> _places(np.array([0, 1, 255, 142], np.uint8)).tolist()
    [0, 2, 400]
    """
    kept = gaps != _SKIP
    ends = np.cumsum(gaps + kept, dtype=np.int64)
    places: NDArray[np.int64] = ends if kept.all() else ends[kept]
    return places - 1
