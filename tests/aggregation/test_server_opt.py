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
