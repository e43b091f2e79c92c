"""SCAFFOLD: sites that know where the others pull, and so do not drift.

Karimireddy et al. 2020, Algorithm 1 with option II (https://arxiv.org/abs/1910.06378). A site k
has a control variate c_k, the server c, the mean over all N sites; they begin at zero. A local step
is::

    y ← y − η (g(y) − c_k + c)

and after K of them, with Δ = y − x the update, over the sites S of the round::

    c_k ← c_k − c − Δ / (K η)
    c   ← c + |S|/N · mean_{k∈S} (new c_k − old c_k) = c − |S|/N · c − 1/(N η) · Σ_{k∈S} Δ_k / K_k

The last form needs the updates and numbers of steps alone, so no site sends its variate. All of it
is by module, because a site may lack a modality, or have it in some of its batches only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedcore.aggregation.mean import SumArray
from fedcore.params import FloatArray, Params, module_of

_CONTROL = "control/"
"""What goes before a param's name where variates lie among params."""


def start(params: Params) -> dict[str, FloatArray]:
    """A control variate before the first round: zeros."""
    return {name: np.zeros_like(array) for name, array in params.items()}


def join(params: Params, control: Params) -> dict[str, FloatArray]:
    """Both in one mapping, as they are stored and sent."""
    return {**params, **{_CONTROL + name: array for name, array in control.items()}}


def split(arrays: Params) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """The params and the variate: what ``join`` put together.

    >>> params, control = {"w": np.ones(1, np.float32)}, {"w": np.zeros(1, np.float32)}
    >>> split(join(params, control)) == (params, control)
    True
    """
    control = {n.removeprefix(_CONTROL): a for n, a in arrays.items() if n.startswith(_CONTROL)}
    return {n: a for n, a in arrays.items() if not n.startswith(_CONTROL)}, control


def of_site(
    own: Params, control: Params, update: Params, steps: Mapping[str, float], learning_rate: float
) -> dict[str, FloatArray]:
    """The site's next variate; modules without an update keep theirs. ``steps``: by module.

    Raises KeyError for a module without its steps, or a name that ``own`` lacks.
    """
    moved = {}
    for name, array in update.items():
        descent = array / np.float32(steps[module_of(name)] * learning_rate)
        moved[name] = own[name] - control[name] - descent
    return {**own, **moved}


def of_server(
    control: Params,
    by_step: Mapping[str, SumArray],
    sites: Mapping[str, float],
    population: int,
    learning_rate: float,
) -> dict[str, FloatArray]:
    """The server's next variate. ``by_step``: Σ Δ_k / K_k; ``sites``: |S| by module, and
    ``population`` N. Modules that nobody trained keep theirs.
    """
    moved = dict(control)
    for name, array in control.items():
        share = sites.get(module_of(name), 0.0) / population
        if share > 0:
            descent = by_step[name] / (population * learning_rate)
            moved[name] = ((1 - share) * array - descent).astype(np.float32)
    return moved
