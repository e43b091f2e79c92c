"""How an update's arrays are coded on the way from a site to the server.

A codec is **additive** if the sum of encoded updates decodes to the sum of the updates: only those
may be summed behind masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError, UpdateRejected
from fedcore.params import FloatArray, Params

Arrays = Mapping[str, NDArray[Any]]


class Codec(Protocol):
    """float32 arrays by parameter name → the arrays that travel, and back."""

    @property
    def name(self) -> str:
        """As in a plan's ``compression.codec``."""

    @property
    def additive(self) -> bool:
        """Whether encoded updates may be summed before they are decoded."""

    def encode(self, update: Params) -> dict[str, NDArray[Any]]:
        """What travels."""

    def decode(self, arrays: Arrays) -> dict[str, FloatArray]:
        """The float32 update. Raises UpdateRejected on arrays that ``encode`` never makes."""


@dataclass(frozen=True)
class Float32:
    """The identity: 4 bytes a value, nothing lost."""

    name: str = "float32"
    additive: bool = True

    def encode(self, update: Params) -> dict[str, NDArray[Any]]:
        return dict(update)

    def decode(self, arrays: Arrays) -> dict[str, FloatArray]:
        return {name: _typed(name, array, np.float32, self) for name, array in arrays.items()}


@dataclass(frozen=True)
class Float16:
    """IEEE half precision: 2 bytes a value, rounded to nearest; relative error at most 2^-11.

    Finite values beyond ±65504 become ±65504; NaN and infinities stay, so that the server sees
    them. Below 6.1e-5 the error is absolute, at most 2^-25. Not additive: sums overflow and round.
    """

    name: str = "float16"
    additive: bool = False

    def encode(self, update: Params) -> dict[str, NDArray[Any]]:
        return {name: _half(array) for name, array in update.items()}

    def decode(self, arrays: Arrays) -> dict[str, FloatArray]:
        return {
            name: _typed(name, array, np.float16, self).astype(np.float32)
            for name, array in arrays.items()
        }


CODECS: Mapping[str, Codec] = {codec.name: codec for codec in (Float32(), Float16())}


def codec(name: str) -> Codec:
    """The codec of that name. Raises ConfigError.

    >>> codec("float16").additive
    False
    """
    try:
        return CODECS[name]
    except KeyError:
        known = ", ".join(CODECS)
        raise ConfigError(f"compression.codec: {name!r} is unknown; use one of {known}") from None


def _half(array: FloatArray) -> NDArray[np.float16]:
    largest = np.finfo(np.float16).max
    saturated = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return saturated.astype(np.float16)


def _typed(name: str, array: NDArray[Any], dtype: type, codec: Codec) -> NDArray[Any]:
    if array.dtype != dtype:
        raise UpdateRejected(
            f"array {name!r} has dtype {array.dtype}; codec {codec.name} wants {np.dtype(dtype)}"
        )
    return array
