"""The server's optimiser: how the mean update of a round changes the global params.

An optimiser is a value, a pair of pure functions. Its state is a flat mapping of arrays, like
params, and can be stored like them. All results are float32 and computed elementwise in a fixed
order, so a round done again gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedcore.params import FloatArray, Params

State = Params

Adaptive = Literal["adagrad", "adam", "yogi"]

_FIRST, _SECOND = "m/", "v/"
"""What goes before a parameter's name in the state, for its first and its second moment."""


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


def adaptive(
    rule: Adaptive,
    learning_rate: float,
    *,
    momentum: float = 0.9,
    second_momentum: float = 0.99,
    tau: float = 1e-3,
) -> ServerOptimizer:
    """FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, Algorithm 2,
    https://arxiv.org/abs/2003.00295).

    With Δ the mean update, β₁ ``momentum``, β₂ ``second_momentum`` and η the learning rate::

        m ← β₁ m + (1 − β₁) Δ
        v ← v + Δ²                            adagrad
        v ← β₂ v + (1 − β₂) Δ²                adam
        v ← v − (1 − β₂) Δ² sign(v − Δ²)      yogi
        params ← params + η m / (√v + τ)

    m starts at zero and v at τ², as there; there is no correction of bias. A module that nobody
    trained in a round keeps its m and v. ``tau`` is how adaptive it is: well above √v, a step is
    that of ``sgd`` with momentum.

    >>> optimizer = adaptive("adam", 0.1, momentum=0.0, tau=1e-9)
    >>> params = {"w": np.zeros(2, np.float32)}
    >>> update = {"w": np.array([4, -0.1], np.float32)}
    >>> moved, _ = optimizer.apply(params, update, optimizer.init(params))
    >>> moved["w"].round(3).tolist()  # ±0.1 / √(1 − β₂), whatever the size of the update
    [1.0, -1.0]
    """
    rate, first, second = (np.float32(x) for x in (learning_rate, momentum, second_momentum))
    floor, one = np.float32(tau), np.float32(1)

    def init(params: Params) -> dict[str, FloatArray]:
        return {_FIRST + name: np.zeros_like(params[name]) for name in sorted(params)} | {
            _SECOND + name: np.full_like(params[name], floor * floor) for name in sorted(params)
        }

    def second_moment(moment: FloatArray, square: FloatArray) -> FloatArray:
        match rule:
            case "adagrad":
                return moment + square
            case "adam":
                return second * moment + (one - second) * square
            case "yogi":
                sign: FloatArray = np.sign(moment - square)
                return moment - (one - second) * square * sign

    def apply(
        params: Params, mean_update: Params, state: State
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        moved, moments = dict(params), dict(state)
        for name, update in mean_update.items():
            m = first * state[_FIRST + name] + (one - first) * update
            v = second_moment(state[_SECOND + name], update * update)
            root: FloatArray = np.sqrt(v)
            moved[name] = params[name] + rate * m / (root + floor)
            moments |= {_FIRST + name: m, _SECOND + name: v}
        return moved, moments

    return ServerOptimizer(init, apply)
