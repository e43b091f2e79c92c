"""How params travel: a codec turns float32 arrays by name into arrays that take fewer bytes.

A codec is **additive** if the sum of encoded updates decodes to the sum of the updates: only those
may be summed behind masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcore import seeds
from fedcore.errors import UpdateRejected
from fedcore.params import FloatArray, Params

Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Turn:
    """Whose message it is. What coding draws follows from this, so doing it again gives the same.

    None of it is a secret: rounding and rotation hide nothing.
    """

    seed: int
    round_num: int
    sender: str

    def shared(self, *path: str | int) -> np.random.Generator:
        """Randomness that everybody has in this round."""
        return self.always(self.round_num, *path)

    def always(self, *path: str | int) -> np.random.Generator:
        """Randomness that everybody has, in every round the same."""
        return self._generator("compression", *path)

    def own(self, *path: str | int) -> np.random.Generator:
        """Randomness of this sender, independent of every other's."""
        return self._generator("rounding", self.round_num, self.sender, *path)

    def _generator(self, *path: str | int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(seeds.derive(self.seed, *path)))


class Coded(NamedTuple):
    """What a stage hands on to the next one, and what travels beside it."""

    values: Mapping[str, FloatArray]
    side: Mapping[str, NDArray[Any]]


class Stage(Protocol):
    """One way of making an update smaller; a codec is a chain of them.

    Every ``decode`` takes the same memory for hostile arrays as for honest ones.
    """

    @property
    def additive(self) -> bool:
        """Whether ``encode`` is linear, the same at every sender, and needs nothing beside."""

    def encode(self, values: Params, turn: Turn, /) -> Coded:
        """Fewer values, or the same in fewer bits. No value is changed in place."""

    def shapes(self, like: Shapes, side: Arrays, turn: Turn, /) -> Shapes:
        """Of the values handed on, for an update of the shapes ``like``.

        Raises UpdateRejected if ``side`` is not what ``encode`` makes.
        """

    def decode(self, values: Arrays, side: Arrays, like: Shapes, turn: Turn, /) -> dict[str, Any]:
        """The update, from values of the right ``shapes``. Raises UpdateRejected."""


class Codec(Protocol):
    """float32 arrays by parameter name → the arrays that travel, and back."""

    @property
    def name(self) -> str:
        """Its stages, for people."""

    @property
    def additive(self) -> bool:
        """Whether encoded updates may be summed before they are decoded."""

    def encode(self, update: Params, turn: Turn, /) -> dict[str, NDArray[Any]]:
        """What travels."""

    def decode(self, arrays: Arrays, like: Params, turn: Turn, /) -> dict[str, FloatArray]:
        """The float32 update of the names and shapes of ``like``.

        Raises UpdateRejected on arrays that ``encode`` never makes of such an update.
        """


def shapes_of(params: Arrays) -> dict[str, tuple[int, ...]]:
    """Name → shape, in name order."""
    return {name: params[name].shape for name in sorted(params)}


def joined(values: Params) -> FloatArray:
    """All values as one vector, in name order."""
    if not values:
        return np.zeros(0, np.float32)
    return np.concatenate([values[name].reshape(-1) for name in sorted(values)])


def parted(vector: NDArray[Any], like: Shapes) -> dict[str, NDArray[Any]]:
    """The inverse: views of ``vector`` by name."""
    parts, begin = {}, 0
    for name, shape in like.items():
        end = begin + math.prod(shape)
        parts[name] = vector[begin:end].reshape(shape)
        begin = end
    return parts


def size_of(like: Shapes) -> int:
    """How many values arrays of these shapes hold."""
    return sum(math.prod(shape) for shape in like.values())


def checked(
    side: Arrays, wanted: Mapping[str, tuple[type, tuple[int, ...] | None]], stage: str
) -> list[NDArray[Any]]:
    """The arrays of these names, types and shapes (None: any vector). Raises UpdateRejected."""
    if set(side) != set(wanted):
        raise UpdateRejected(f"{stage}: has {sorted(side)} where {sorted(wanted)} are wanted")
    for name, (dtype, shape) in wanted.items():
        array = side[name]
        right = array.ndim == 1 if shape is None else array.shape == shape
        if array.dtype != dtype or not right:
            raise UpdateRejected(
                f"{stage}: {name} has dtype {array.dtype} and shape {array.shape}; "
                f"{np.dtype(dtype)} and {'one dimension' if shape is None else shape} are wanted"
            )
    return [side[name] for name in wanted]
