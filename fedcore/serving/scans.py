"""Image files of one subject → a model's inputs, prepared as its training data were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.config.task import Task
from fedcore.data.preparation import Pipeline, prepare
from fedcore.data.preprocess import Grid
from fedcore.errors import DataError

_BUILT_IN = "fedcore.data.bids:dataset"


def prepared(
    files: Mapping[str, bytes], task: Mapping[str, Any], *, max_bytes: int
) -> dict[str, NDArray[np.float32]]:
    """``ready``'s inputs: modality → (1, C, X, Y[, Z])."""
    return dict(ready(files, task, max_bytes=max_bytes).inputs)


@dataclass(frozen=True)
class Ready:
    """A subject as a model takes it. ``grid``: of MR, CT and PET, around the scan ``reference``."""

    inputs: Mapping[str, NDArray[np.float32]]
    grid: Grid | None
    reference: str | None


def ready(files: Mapping[str, bytes], task: Mapping[str, Any], *, max_bytes: int) -> Ready:
    """A subject's inputs, from modality → NIfTI file, or photo.

    ``task``: of the plan in the model's manifest. Raises DataError that names the modality whose
    file is not usable (each may unzip to ``max_bytes``), or says that the plan's dataset function
    is its own, so that nobody here knows how it prepares its inputs.
    """
    what = Task.model_validate(task)
    if what.dataset.function != _BUILT_IN:
        raise DataError(
            f"this model's inputs are prepared by {what.dataset.function}; send what that gives, "
            "as .npz or safetensors",
            reason="own dataset function",
        )
    for name in files:
        if name not in what.modalities:
            raise DataError(
                f"the model has no input {name!r}; it takes {', '.join(what.modalities)}",
                reason="unknown input",
            )
    arguments = what.dataset.arguments
    pipeline = Pipeline.of(what, arguments.get("shape"), arguments.get("spacing_mm"))
    made = prepare(pipeline, files, max_bytes=max_bytes)
    for name, (reason, told) in made.left_out.items():
        raise DataError(f"{name}: {told}", reason=reason)
    inputs = {name: image[None] for name, image in pipeline.tensors(made).items()}
    return Ready(inputs, made.grid, made.history[0]["reference"] if made.history else None)
