"""Half precision: 2 bytes a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcore.compression.codec import Arrays, Coded, Shapes, Turn, checked, joined, parted, size_of
from fedcore.params import Params


@dataclass(frozen=True)
class Float16:
    """IEEE half precision, rounded to nearest; relative error at most 2^-11.

    Finite values beyond ±65504 become ±65504; NaN and infinities stay, so that the server sees
    them. Below 6.1e-5 the error is absolute, at most 2^-25. Not additive: sums overflow and round.
    """

    additive: bool = False

    def encode(self, values: Params, _turn: Turn) -> Coded:
        vector, largest = joined(values), np.finfo(np.float16).max
        saturated = np.where(np.isfinite(vector), np.clip(vector, -largest, largest), vector)
        return Coded({}, {"halves": saturated.astype(np.float16)})

    def shapes(self, like: Shapes, side: Arrays, _turn: Turn) -> Shapes:
        checked(side, {"halves": (np.float16, (size_of(like),))}, "float16")
        return {}

    def decode(self, _values: Arrays, side: Arrays, like: Shapes, _turn: Turn) -> dict[str, Any]:
        return parted(side["halves"].astype(np.float32), like)
