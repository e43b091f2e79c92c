"""Class probabilities from a released ONNX file, with whatever modalities a subject has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import ge
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BlobError, DataError
from fedcore.windows import blend

Images = Mapping[str, NDArray[Any]]


class Predictor:
    """A model in ONNX Runtime, on a GPU where there is one. Safe to use from several threads.

    ``classes`` name the columns of what ``predict`` gives; ``modalities`` are those it takes, in
    the order of "present". A model without "present" takes all of ``inputs``, always. ``overlap``:
    of windows, if the model takes patches: ``inputs`` then says how large those are, and images may
    be larger.
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
            self.overlap: float | None = json.loads(metadata.get("overlap", "null"))
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

        ``images``: modality → (B, 1, X, Y, Z), prepared as in training; of any size that a patch
        fits into, if the model takes such. Raises DataError that names what is unknown, missing,
        or of the wrong shape or type.
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
        _require_alike(arrays, "number of subjects", len)
        found = self._run(arrays) if self.overlap is None else self._slid(arrays, self.overlap)
        if not np.isfinite(found).all():
            raise DataError(
                "the model's answer is not finite: prepare the inputs as in training",
                reason="not finite",
            )
        return cast(NDArray[np.float64], found.astype(np.float64))

    def _run(self, images: Images) -> NDArray[np.float32]:
        """The session's answer; what is absent is zero, and marked so."""
        batch = len(next(iter(images.values())))
        arrays = dict(images)
        for name, shape in self.inputs.items():
            if name not in images and name != "present":
                arrays[name] = np.zeros((batch, *shape), dtype=np.float32)
        if self._optional:
            row = np.array([name in images for name in self._columns], dtype=np.float32)
            arrays["present"] = np.tile(row, (batch, 1))
        (found,) = self._session.run(["probabilities"], arrays)
        return cast(NDArray[np.float32], found)

    def _slid(self, images: Images, overlap: float) -> NDArray[np.float32]:
        """The answer of a model that takes patches on images of any larger size."""
        _require_alike(images, "grid", lambda array: array.shape[2:])
        name, image = next(iter(images.items()))
        return blend(
            image.shape[2:],
            lambda place: self._run({n: of[(..., *place)] for n, of in images.items()}),
            patch=self.inputs[name][1:],
            overlap=overlap,
        )

    def _checked(self, name: str, image: NDArray[Any]) -> NDArray[np.float32]:
        wanted = self.inputs[name]
        if image.size == 0 or not self._fits(image.shape[1:], wanted):
            least = "" if self.overlap is None else ", or more voxels,"
            axes = ", ".join(["batch", *map(str, wanted)])
            raise DataError(
                f"{name} has shape {image.shape}; ({axes}){least} is wanted", reason="wrong shape"
            )
        if image.dtype.kind not in "fiu":
            raise DataError(f"{name} has type {image.dtype}, not numbers", reason="wrong type")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(image, dtype=np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{name} has values that are not finite", reason="not finite")
        return array

    def _fits(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        if self.overlap is None or len(shape) != len(wanted):
            return shape == wanted
        return shape[0] == wanted[0] and all(map(ge, shape, wanted))


def _require_alike(arrays: Images, what: str, of: Callable[[NDArray[Any]], Any]) -> None:
    """Raises DataError if the arrays differ in what ``of`` gives, which is their ``what``."""
    found = {name: of(array) for name, array in arrays.items()}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {one}" for name, one in found.items())
        raise DataError(f"the inputs differ in their {what}: {told}", reason="wrong shape")


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
