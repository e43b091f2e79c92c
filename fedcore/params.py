"""Params: a flat mapping name → float32 array, and what one can say of it without the model.

Names are dotted and start with their **module**, the unit that a site can lack and that the
aggregation weighs on its own: ``encoder.<modality>`` for encoders, the first component otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Params = Mapping[str, FloatArray]

BLOCK = 32_768
"""Values a block: 256 KiB as float64, so a pass over blocks works in the processor's cache."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


def module_of(name: str) -> str:
    """The module that a parameter belongs to.

    >>> module_of("encoder.pet.conv1.weight"), module_of("head.bias"), module_of("weight")
    ('encoder.pet', 'head', 'weight')
    """
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "encoder" and len(parts) > 2 else parts[0]


def modules(names: Iterable[str]) -> tuple[str, ...]:
    """The modules of these names, sorted, each once."""
    return tuple(sorted({module_of(name) for name in names}))


def only(params: Params, wanted: Iterable[str]) -> dict[str, FloatArray]:
    """The params whose module is among ``wanted``."""
    keep = set(wanted)
    return {name: array for name, array in params.items() if module_of(name) in keep}


def subtract(left: Params, right: Params) -> dict[str, FloatArray]:
    """``left − right`` over the names of ``left``. Raises KeyError where ``right`` lacks one."""
    return {name: left[name] - right[name] for name in left}


def nbytes(params: Params) -> int:
    """Bytes of all arrays together."""
    return sum(array.nbytes for array in params.values())


def blocks(array: NDArray[_Scalar]) -> Iterator[NDArray[_Scalar]]:
    """The values of ``array`` in C order as flat pieces of at most ``BLOCK`` values.

    Of a contiguous array these are views, so that work in place on them changes the array.
    """
    flat = array.reshape(-1)
    for begin in range(0, flat.size, BLOCK):
        yield flat[begin : begin + BLOCK]


def digest(params: Params) -> str:
    """SHA-256 (hex) over names, shapes and little-endian float32 values, in name order."""
    state = hashlib.sha256()
    for name in sorted(params):
        array = np.ascontiguousarray(params[name], dtype="<f4")
        state.update(f"{name}:{array.shape};".encode())
        state.update(array.data)
    return state.hexdigest()


def problem_with(update: Params, like: Params) -> str | None:
    """Why ``update`` cannot be added to ``like``, or None. Whole modules may be absent, not parts.

    Checks names, shapes and dtype, in that order, without reading a value. Whether every value is
    finite is what ``privacy.clipping.l2_norm`` says on its way.
    """
    unknown = sorted(set(update) - set(like))
    if unknown:
        return f"has the unknown parameter {unknown[0]!r}"
    expected = only(like, modules(update))
    missing = sorted(set(expected) - set(update))
    if missing:
        return f"lacks the parameter {missing[0]!r} of module {module_of(missing[0])!r}"
    for name in sorted(update):
        array = update[name]
        if array.shape != like[name].shape:
            return f"has shape {array.shape} for {name!r}; the model has {like[name].shape}"
        if array.dtype != np.float32:
            return f"has dtype {array.dtype} for {name!r}; float32 is wanted"
    return None
