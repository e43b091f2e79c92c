"""A checkpoint that somebody else trained → params under this model's names.

On the coordinator's side only, and once: what a run starts from is safetensors.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from fedcore.errors import ConfigError
from fedcore.params import FloatArray

_BUNDLED = "models/model.pt"
_NESTED = ("state_dict", "model_state_dict", "model", "network")


def read(path: Path) -> dict[str, FloatArray]:
    """The floating-point tensors of a checkpoint, as float32, by their names there.

    ``path``: safetensors; what ``torch.save`` wrote of a state dict, also within a dictionary; or a
    MONAI bundle, as a folder or a zip file. Pickle is read with ``weights_only``: nothing in it is
    run. Raises ConfigError where it is none of these.
    """
    try:
        found = _tensors(path)
    except (OSError, pickle.UnpicklingError, RuntimeError, SafetensorError, EOFError) as error:
        raise ConfigError(
            f"{path}: is no checkpoint that can be read ({str(error).splitlines()[0]}); give "
            "safetensors, a state dict by torch.save, or a MONAI bundle"
        ) from error
    tensors = {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise ConfigError(f"{path}: holds no tensor by name; save the module's state_dict()")
    return {
        name: np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }


def renamed(found: Mapping[str, FloatArray], prefixes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Those whose name begins with a prefix, with another in its place; the longest prefix counts.

    >>> import numpy as np
    >>> renamed({"conv.weight": np.ones(1), "fc.bias": np.ones(1)}, [("conv", "encoder.ct.conv")])
    {'encoder.ct.conv.weight': array([1.])}
    """
    named = {}
    for name, array in found.items():
        fitting = [pair for pair in prefixes if name.startswith(pair[0])]
        if fitting:
            theirs, ours = max(fitting, key=lambda pair: len(pair[0]))
            named[ours + name.removeprefix(theirs)] = array
    return named


def fitting(
    found: Mapping[str, FloatArray], model: Mapping[str, FloatArray]
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Those that the model has in the same shape; and name → why another is left out."""
    reasons = {}
    for name, array in found.items():
        if name not in model:
            reasons[name] = "the model has no such param"
        elif model[name].shape != array.shape:
            reasons[name] = f"has shape {array.shape}, and the model {model[name].shape}"
    return {name: found[name] for name in found if name not in reasons}, reasons


def _tensors(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        path /= _BUNDLED
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        return load_safetensors(data)
    if zipfile.is_zipfile(io.BytesIO(data)):  # torch.save makes one, too
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            inside = [name for name in bundle.namelist() if name.endswith(_BUNDLED)]
            if inside:
                data = bundle.read(inside[0])
    loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for name in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    return loaded if isinstance(loaded, Mapping) else {}
