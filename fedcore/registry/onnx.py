"""From a trained module to one ONNX file, and how far the two differ on real inputs."""

from __future__ import annotations

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcore.errors import BlobError, DataError, ReleaseError
from fedcore.params import digest
from fedcore.registry.api import TOLERANCE
from fedcore.training.state import get_params

__all__ = ["OPSET", "TOLERANCE", "export", "parity", "patterns"]

OPSET = 18
"""The opset that torch's exporter is written in: any other goes through a converter."""

Inputs = Tensor | Mapping[str, Tensor]


def export(module: nn.Module, inputs: Inputs, *, metadata: Mapping[str, Any]) -> bytes:
    """One self-contained ONNX file of ``module`` in evaluation mode, with a free batch.

    ``inputs``: an example batch of at least two, a tensor (called "input") or a dictionary of
    them, whose keys name the inputs; all are needed at run time. The output "probabilities" (B, K)
    is the softmax of what the module gives.
    ``metadata`` goes into the file, each value as JSON, and with it ``params_digest``.
    Raises ReleaseError if torch cannot export the module, or the result is no valid model.
    """
    import onnx

    model = _trace(module, inputs).model_proto
    _forget_sources(model.graph)
    found = {"params_digest": digest(get_params(module)), **metadata}
    onnx.helper.set_model_props(
        model, {name: json.dumps(value, sort_keys=True) for name, value in found.items()}
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ReleaseError(f"the ONNX export is not valid: {error}") from error
    return cast(bytes, model.SerializeToString(deterministic=True))


def patterns(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Every set of modalities a subject can have: each non-empty subset, in order.

    >>> patterns(["t1", "pet"])
    [('t1',), ('pet',), ('t1', 'pet')]
    """
    sizes = range(1, len(modalities) + 1)
    return [subset for size in sizes for subset in combinations(modalities, size)]


def parity(
    module: nn.Module, model: bytes, examples: Inputs, modalities: Sequence[str] = ()
) -> float:
    """Largest absolute difference of a probability between ``module`` and its export ``model``.

    ``examples``: real inputs, as the module takes them. With "present" (B, M) among them, its
    columns named by ``modalities``, the two are compared over every pattern of the modalities
    that the examples have, each time on the subjects that keep one. A modality outside a pattern
    is left out in PyTorch and zero in ONNX, as it is in training and in serving. Infinite where a
    probability is not finite. Raises BlobError if ``model`` cannot be run, DataError if there is
    nothing to compare.
    """
    module = copy.deepcopy(module).cpu().eval()
    session = _session(model)
    differences = [
        _difference(module, session, case) for case in _cases(examples, tuple(modalities))
    ]
    if not differences:
        raise DataError("no example has a modality, so the ONNX export cannot be compared")
    return max(differences)


def _trace(module: nn.Module, inputs: Inputs) -> torch.onnx.ONNXProgram:
    tensors = _named(inputs)
    names = None if isinstance(inputs, Tensor) else tuple(tensors)
    batch = {0: torch.export.Dim("batch")}
    with _quiet():
        try:
            program = torch.onnx.export(
                _Positional(copy.deepcopy(module).cpu(), names).eval(),
                tuple(tensors.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(tensors),
                output_names=["probabilities"],
                dynamic_shapes=((batch,) * len(tensors),),
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ReleaseError(
                f"torch cannot export {type(module).__name__} to ONNX: {reason}; its forward must "
                "be traceable by torch.export with a free batch size"
            ) from error
    return cast(torch.onnx.ONNXProgram, program)  # with dynamo=True it is never None


def probabilities(module: nn.Module, inputs: Inputs) -> Tensor:
    """What an export gives: the softmax of the module's logits, (B, K)."""
    logits: Tensor = module(inputs)
    return logits.softmax(dim=1)


class _Positional(nn.Module):
    """Gives probabilities. Takes the tensors one by one: their order is then ours, not a dict's."""

    def __init__(self, module: nn.Module, names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        inputs = tensors[0] if self.names is None else dict(zip(self.names, tensors, strict=True))
        return probabilities(self.module, inputs)


def _named(inputs: Inputs) -> dict[str, Tensor]:
    named = {"input": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    return {name: tensor.detach().cpu() for name, tensor in named.items()}


def _cases(examples: Inputs, modalities: tuple[str, ...]) -> Iterator[Inputs]:
    """The examples under each pattern of missing modalities; as they are if they know none."""
    if isinstance(examples, Tensor) or "present" not in examples:
        yield examples
        return
    inputs = _named(examples)
    present = inputs["present"] > 0.5
    if present.shape[1] != len(modalities):
        raise DataError(
            f'"present" has {present.shape[1]} columns for the {len(modalities)} modalities '
            f"{list(modalities)}: check the plan's dataset function"
        )
    column = {name: present[:, index] for index, name in enumerate(modalities)}
    had = [name for name in modalities if name in inputs and bool(column[name].any())]
    for pattern in patterns(had):
        kept = torch.stack(
            [column[n] if n in pattern else torch.zeros_like(column[n]) for n in modalities], dim=1
        )
        rows = kept.any(dim=1)
        case = {n: x[rows] for n, x in inputs.items() if n not in modalities or n in pattern}
        yield case | {"present": kept[rows].to(inputs["present"].dtype)}


def _difference(module: nn.Module, session: Any, case: Inputs) -> float:
    named = _named(case)
    with torch.inference_mode():
        given = named["input"] if isinstance(case, Tensor) else named
        expected = probabilities(module, given).numpy()
    (found,) = session.run(["probabilities"], _complete(session, named))
    if found.shape != expected.shape:
        return math.inf
    difference = np.abs(found.astype(np.float64) - expected)
    return float(difference.max()) if np.isfinite(difference).all() else math.inf


def _complete(session: Any, named: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """What the session takes: the inputs, and zeros for a modality that is left out."""
    batch = len(next(iter(named.values())))
    taken = session.get_inputs()
    unknown = sorted(set(named) - {node.name for node in taken})
    if unknown:
        raise BlobError(f"the ONNX model lacks the input {unknown[0]!r} that the examples have")
    return {
        node.name: named[node.name].numpy()
        if node.name in named
        else np.zeros((batch, *node.shape[1:]), dtype=np.float32)
        for node in taken
    }


def _session(model: bytes) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # a client shares its machine with its own training
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (
        native.InvalidProtobuf, native.InvalidArgument, native.InvalidGraph, native.Fail,
        native.NotImplemented,
    ) as error:  # fmt: skip
        raise BlobError(f"the ONNX model cannot be loaded: {error}") from error


def _forget_sources(graph: Any) -> None:
    """Drop torch's notes on where each node comes from: paths of this machine, half the file."""
    graph.ClearField("metadata_props")
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch says of itself while exporting off the terminal, and nothing else.

    It warns that torchvision is not there, that one axis name serves several inputs, and of its
    own deprecated calls.
    """
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"# The axis name: batch will not be used")
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
