"""Low rank: of a matrix, the product of two thin ones.

One power iteration from a random start, as PowerSGD does from the last round's
(Vogels et al. 2019, https://arxiv.org/abs/1905.13727, Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcore.compression.codec import Arrays, Coded, Shapes, Turn, checked
from fedcore.params import FloatArray, Params


@dataclass(frozen=True)
class LowRank:
    """``rank`` columns for every array that is a matrix (its first dimension × the others).

    M ≈ P Qᵀ with P = orth(M Q₀), Q = Mᵀ P and Q₀ random: the projection of M on the columns of P,
    so that ‖M − P Qᵀ‖ ≤ ‖M‖ always. What would not be smaller so travels as it is.
    """

    rank: int
    additive: bool = False

    def encode(self, values: Params, turn: Turn) -> Coded:
        return Coded({name: self._factors(name, values[name], turn) for name in values}, {})

    def shapes(self, like: Shapes, side: Arrays, _turn: Turn) -> Shapes:
        checked(side, {}, "low_rank")
        return {
            name: shape if (sides := self._sides(shape)) is None else (self.rank * sum(sides),)
            for name, shape in like.items()
        }

    def decode(self, values: Arrays, _side: Arrays, like: Shapes, _turn: Turn) -> dict[str, Any]:
        return {name: self._product(values[name], shape) for name, shape in like.items()}

    def _sides(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Rows and columns of the matrix, None where factors would not be smaller."""
        if len(shape) < 2:
            return None
        rows, columns = shape[0], int(np.prod(shape[1:]))
        return (rows, columns) if self.rank * (rows + columns) < rows * columns else None

    def _factors(self, name: str, array: FloatArray, turn: Turn) -> FloatArray:
        sides = self._sides(array.shape)
        if sides is None:
            return array
        matrix = array.reshape(sides)
        start = turn.shared("low rank", name).standard_normal((sides[1], self.rank), np.float32)
        left, _ = np.linalg.qr(matrix @ start)
        right = matrix.T @ left
        return np.concatenate([left.reshape(-1), right.reshape(-1)])

    def _product(self, factors: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        sides = self._sides(shape)
        if sides is None:
            return factors
        left, right = np.split(factors, [self.rank * sides[0]])
        product = left.reshape(-1, self.rank) @ right.reshape(-1, self.rank).T
        return product.reshape(shape).astype(np.float32, copy=False)
