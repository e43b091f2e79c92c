from __future__ import annotations

import numpy as np
import pytest

from fedcore.aggregation import server_opt


def f32(*numbers):
    return np.array(numbers, np.float32)


def test_fedavg_adds_the_mean_update():
    optimizer = server_opt.sgd()
    params = {"a": f32(1, 2), "b": f32(0.1)}
    moved, state = optimizer.apply(params, {"a": f32(0.5, -1)}, optimizer.init(params))
    assert moved["a"].tolist() == [1.5, 1.0]
    assert moved["b"] is params["b"]  # nobody trained it
    assert state == {}
    assert params["a"].tolist() == [1.0, 2.0]


def test_momentum_keeps_what_nobody_trained():
    optimizer = server_opt.sgd(learning_rate=1.0, momentum=0.5)
    params = {"a": f32(0), "b": f32(0)}
    params, state = optimizer.apply(params, {"a": f32(1), "b": f32(1)}, optimizer.init(params))
    params, state = optimizer.apply(params, {"a": f32(1)}, state)
    assert {name: float(v[0]) for name, v in params.items()} == {"a": 2.5, "b": 1.0}
    assert {name: float(v[0]) for name, v in state.items()} == {"a": 1.5, "b": 1.0}


@pytest.mark.parametrize(("rate", "momentum"), [(1.0, 0.0), (0.3, 0.9)])
def test_results_are_float32_and_repeatable(rate, momentum):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal(1000, dtype=np.float32)}
    updates = [{"w": rng.standard_normal(1000, dtype=np.float32)} for _ in range(3)]

    def run():
        optimizer = server_opt.sgd(rate, momentum)
        current, state = params, optimizer.init(params)
        for update in updates:
            current, state = optimizer.apply(current, update, state)
        assert all(array.dtype == np.float32 for array in [*current.values(), *state.values()])
        return current["w"].tobytes()

    assert run() == run()


def test_follows_hsu_2019_step_by_step():
    optimizer = server_opt.sgd(learning_rate=0.3, momentum=0.9)
    params, velocity, expected = {"w": f32(1)}, 0.0, 1.0
    state = optimizer.init(params)
    for update in (0.2, -1.0, 0.7):
        params, state = optimizer.apply(params, {"w": f32(update)}, state)
        velocity = 0.9 * velocity + update
        expected += 0.3 * velocity
    assert params["w"][0] == pytest.approx(expected, rel=1e-6)


def test_unknown_names_are_errors():
    with pytest.raises(KeyError):
        server_opt.sgd().apply({"a": f32(1)}, {"b": f32(1)}, {})


@pytest.mark.parametrize("rule", ["adagrad", "adam", "yogi"])
def test_follows_reddi_2021_step_by_step(rule):
    optimizer = server_opt.adaptive(rule, 0.1, momentum=0.9, second_momentum=0.8, tau=0.05)
    params, state = {"w": f32(1)}, optimizer.init({"w": f32(1)})
    expected, m, v = 1.0, 0.0, 0.05**2
    for update in (0.2, -1.0, 0.7, 0.0):
        params, state = optimizer.apply(params, {"w": f32(update)}, state)
        m = 0.9 * m + 0.1 * update
        square = update**2
        v = {
            "adagrad": v + square,
            "adam": 0.8 * v + 0.2 * square,
            "yogi": v - 0.2 * square * np.sign(v - square),
        }[rule]
        expected += 0.1 * m / (v**0.5 + 0.05)
        assert params["w"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", ["adagrad", "adam", "yogi"])
def test_adaptive_rules_reach_the_optimum_of_a_badly_scaled_convex_toy(rule):
    scale, optimum = f32(100, 1, 0.01), f32(1, -2, 3)
    optimizer = server_opt.adaptive(rule, 0.3, momentum=0.5, second_momentum=0.9, tau=1e-4)
    params = {"w": np.zeros(3, np.float32)}
    state = optimizer.init(params)
    for _ in range(300):
        params, state = optimizer.apply(params, {"w": scale * (optimum - params["w"])}, state)
    assert np.abs(params["w"] - optimum).max() < 0.2


@pytest.mark.parametrize("rule", ["adagrad", "adam", "yogi"])
def test_adaptive_rules_keep_what_nobody_trained(rule):
    optimizer = server_opt.adaptive(rule, 0.1)
    params = {"a": f32(0), "b": f32(7)}
    first = optimizer.init(params)
    moved, state = optimizer.apply(params, {"a": f32(1)}, first)
    assert moved["b"] is params["b"]
    assert {name for name in state if state[name] is not first[name]} == {"m/a", "v/a"}
