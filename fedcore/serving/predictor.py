"""Class probabilities from a released ONNX file, with whatever modalities a subject has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BlobError, DataError

Images = Mapping[str, NDArray[Any]]


class Predictor:
    """A model in ONNX Runtime, on a GPU where there is one. Safe to use from several threads.

    ``classes`` name the columns of what ``predict`` gives; ``modalities`` are those it takes, in
    the order of "present". A model without "present" takes all of ``inputs``, always.
    """

    def __init__(self, model: bytes) -> None:
        """Raises BlobError if ``model`` is no ONNX file that fedcore exported."""
        self._session = _session(model)
        self.inputs: dict[str, tuple[int, ...]] = {
            node.name: tuple(node.shape[1:]) for node in self._session.get_inputs()
        }
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            self.classes: tuple[str, ...] = tuple(json.loads(metadata["classes"]))
            named: tuple[str, ...] = tuple(json.loads(metadata["modalities"]))
        except (KeyError, ValueError, TypeError) as error:
            raise BlobError(
                f"the ONNX file does not say its classes and modalities ({error!r}); use one that "
                "fedcore exported"
            ) from error
        self._columns = named
        self.modalities = tuple(name for name in named if name in self.inputs)
        self._optional = "present" in self.inputs

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Probabilities (B, K), of voxels (B, K, X, Y, Z), of subjects that all have these images.

        ``images``: modality → (B, 1, X, Y, Z), prepared as in training. Raises DataError that
        names what is unknown, missing, or of the wrong shape or type.
        """
        known = [name for name in self.inputs if name != "present"]
        for name in images:
            if name not in known:
                raise DataError(
                    f"the model has no input {name!r}; it takes {', '.join(known)}",
                    reason="unknown input",
                )
        if not images:
            raise DataError(
                f"no image was given; give at least one of {', '.join(known)}", reason="no input"
            )
        absent = [name for name in known if name not in images]
        if absent and not self._optional:
            raise DataError(f"the model needs {', '.join(absent)} too", reason="missing input")
        arrays = {name: self._checked(name, image) for name, image in images.items()}
        batch = _common_batch(arrays)
        for name in absent:
            arrays[name] = np.zeros((batch, *self.inputs[name]), dtype=np.float32)
        if self._optional:
            row = np.array([name in images for name in self._columns], dtype=np.float32)
            arrays["present"] = np.tile(row, (batch, 1))
        (found,) = self._session.run(["probabilities"], arrays)
        if not np.isfinite(found).all():
            raise DataError(
                "the model's answer is not finite: prepare the inputs as in training",
                reason="not finite",
            )
        return cast(NDArray[np.float64], found.astype(np.float64))

    def _checked(self, name: str, image: NDArray[Any]) -> NDArray[np.float32]:
        wanted = self.inputs[name]
        if image.ndim == 0 or image.shape[1:] != wanted or len(image) == 0:
            axes = ", ".join(["batch", *map(str, wanted)])
            raise DataError(
                f"{name} has shape {image.shape}; ({axes}) is wanted", reason="wrong shape"
            )
        if image.dtype.kind not in "fiu":
            raise DataError(f"{name} has type {image.dtype}, not numbers", reason="wrong type")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(image, dtype=np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{name} has values that are not finite", reason="not finite")
        return array


def _common_batch(arrays: Images) -> int:
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"the inputs differ in their number of subjects: {told}",
                        reason="wrong shape")  # fmt: skip
    return next(iter(sizes.values()))


def _session(model: bytes) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    available = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=[name for name in wanted if name in available]
        )
    except (
        native.InvalidProtobuf, native.InvalidArgument, native.InvalidGraph, native.Fail,
        native.NotImplemented,
    ) as error:  # fmt: skip
        raise BlobError(f"the ONNX model cannot be loaded: {error}") from error
