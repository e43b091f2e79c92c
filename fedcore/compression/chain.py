"""A codec as a chain of stages, as a plan lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.compression.codec import Arrays, Shapes, Stage, Turn, shapes_of
from fedcore.compression.half import Float16
from fedcore.compression.lowrank import LowRank
from fedcore.compression.quantize import Quantise
from fedcore.compression.sparsify import Subsample, TopK
from fedcore.errors import UpdateRejected
from fedcore.params import FloatArray, Params


@dataclass(frozen=True)
class Chain:
    """Each stage codes what the one before it handed on. Without a stage: float32 as it is.

    What stage n puts beside the values travels as ``n/<its name>``: no parameter has a slash.
    """

    stages: tuple[Stage, ...] = ()

    @property
    def name(self) -> str:
        return " + ".join(type(stage).__name__ for stage in self.stages) or "float32"

    @property
    def additive(self) -> bool:
        return all(stage.additive for stage in self.stages)

    def encode(self, update: Params, turn: Turn) -> dict[str, NDArray[Any]]:
        values, beside = update, dict[str, NDArray[Any]]()
        for number, stage in enumerate(self.stages):
            values, side = stage.encode(values, turn)
            beside |= {f"{number}/{name}": array for name, array in side.items()}
        return {**beside, **values}

    def decode(self, arrays: Arrays, like: Params, turn: Turn) -> dict[str, FloatArray]:
        for name, array in arrays.items():
            if "/" not in name and array.dtype != np.float32:
                raise UpdateRejected(f"array {name!r} has dtype {array.dtype}; float32 is wanted")
        return self.expand(arrays, shapes_of(like), turn) if self.stages else dict(arrays)

    def smaller(self, like: Shapes, turn: Turn) -> Shapes:
        """The shapes that an additive chain makes of these."""
        for stage in self.stages:
            like = stage.shapes(like, {}, turn)
        return like

    def expand(self, arrays: Arrays, like: Shapes, turn: Turn, number: int = 0) -> dict[str, Any]:
        """``decode`` from this stage on, of values of any type: also of sums of updates."""
        if number == len(self.stages):
            return _values(arrays, like)
        stage, mark = self.stages[number], f"{number}/"
        side = {name.removeprefix(mark): a for name, a in arrays.items() if name.startswith(mark)}
        rest = {name: a for name, a in arrays.items() if not name.startswith(mark)}
        inner = stage.shapes(like, side, turn)
        values = self.expand(rest, inner, turn, number + 1)
        return stage.decode(values, side, like, turn)


def chain(stages: Sequence[Mapping[str, Any]], *, unbiased: bool) -> Chain:
    """The codec of a plan's list of stages.

    ``unbiased``: round at random, because nothing makes good what rounding loses.
    """
    return Chain(tuple(_stage(unbiased, **fields) for fields in stages))


def _stage(unbiased: bool, stage: str, **fields: Any) -> Stage:
    match stage:
        case "low_rank":
            return LowRank(**fields)
        case "subsample":
            return Subsample(**fields)
        case "top_k":
            return TopK(**fields)
        case "float16":
            return Float16()
        case "quantise":
            return Quantise(**fields, unbiased=unbiased)
    raise ValueError(f"no stage is called {stage!r}")


def _values(arrays: Arrays, like: Shapes) -> dict[str, NDArray[Any]]:
    """The arrays, if they are those of ``like``."""
    for name in sorted({*arrays, *like}):
        if name not in like:
            raise UpdateRejected(f"has the array {name!r}, which its coding does not make")
        if name not in arrays or arrays[name].shape != like[name]:
            found = arrays[name].shape if name in arrays else "nothing"
            raise UpdateRejected(f"has {found} for {name!r}; its coding makes {like[name]}")
    return {name: arrays[name] for name in like}
