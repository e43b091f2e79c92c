"""The server's optimiser: how the mean update of a round changes the global params.

An optimiser is a value, a pair of pure functions. Its state is a flat mapping of arrays, like
params, and can be stored like them. All results are float32 and computed elementwise in a fixed
order, so a round done again gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedcore.params import FloatArray, Params

State = Params


@dataclass(frozen=True)
class ServerOptimizer:
    """``init(params) → state`` and ``apply(params, mean_update, state) → (params, state)``.

    The mean update is −pseudo-gradient (see ``records``), so it is added. Names it lacks (modules
    that nobody trained) keep their params and their state. Raises KeyError on unknown names.
    """

    init: Callable[[Params], dict[str, FloatArray]]
    apply: Callable[[Params, Params, State], tuple[dict[str, FloatArray], dict[str, FloatArray]]]


def sgd(learning_rate: float = 1.0, momentum: float = 0.0) -> ServerOptimizer:
    """FedAvg (1, 0; McMahan et al. 2017) and FedAvgM (Hsu et al. 2019).

    ``v ← momentum · v + mean_update``, ``params ← params + learning_rate · v``; v starts at zero
    (https://arxiv.org/abs/1602.05629, https://arxiv.org/abs/1909.06335). Without momentum there
    is no state.

    >>> optimizer = sgd(learning_rate=0.5, momentum=0.9)
    >>> params = {"w": np.ones(1, np.float32)}
    >>> state = optimizer.init(params)
    >>> params, state = optimizer.apply(params, {"w": np.ones(1, np.float32)}, state)
    >>> params, state = optimizer.apply(params, {"w": np.ones(1, np.float32)}, state)
    >>> params, state  # 1 + 0.5 · 1 + 0.5 · (0.9 + 1)
    ({'w': array([2.45], dtype=float32)}, {'w': array([1.9], dtype=float32)})
    """
    rate, decay = np.float32(learning_rate), np.float32(momentum)

    def init(params: Params) -> dict[str, FloatArray]:
        return {name: np.zeros_like(params[name]) for name in sorted(params)} if momentum else {}

    def apply(
        params: Params, mean_update: Params, state: State
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        velocity = (
            {name: decay * state[name] + mean_update[name] for name in mean_update}
            if momentum
            else mean_update
        )
        moved = {name: params[name] + rate * velocity[name] for name in velocity}
        return {**params, **moved}, {**state, **velocity} if momentum else {}

    return ServerOptimizer(init, apply)
