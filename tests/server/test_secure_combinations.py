"""Every secure mode with every other option that it goes with, in whole runs.

The model is that of the plain run with the same option: alone, and with all of them at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import toy

from fedcore.config.combinations import MODES
from fedcore.params import Params
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "capped examples": {"aggregation": {"weights": "examples", "weight_cap": 64}},
    "noise": {"privacy": {"noise_multiplier": 0.5, "noise_source": "seeded"}},
    "noise by subject": {
        "privacy": {
            "noise_source": "seeded",
            "subject": {
                "clip_norm": 0.5,
                "noise_multiplier": 1.0,
                "sampling_rate": 0.5,
                "steps": 2,
            },
        }
    },
    "momentum": {"aggregation": {"server_momentum": 0.9}},
    "FedYogi": {"aggregation": {"server_optimizer": "yogi", "server_learning_rate": 0.02}},
    "FedProx": {"training": {"proximal_mu": 0.01}},
    "a cohort of two": {"cohort": {"size": 2}},
    "24 bits": {"secure_aggregation": {"bits": 24}},
    "neighbours": {"secure_aggregation": {"neighbours": 2}},
    "statistics": {"secure_aggregation": {"statistics": True}},
    "every second value": {
        "compression": {"up": [{"stage": "subsample", "every": 2}], "feedback": True}
    },
}
WITHOUT_MASKS = {"`ckks`", "`ckks`, selective, rest plain"}
SECURE = [mode for mode in MODES if mode.fields]


def plan(*options: dict[str, dict[str, Any]]) -> toy.Plan:
    sections: dict[str, dict[str, Any]] = {
        "aggregation": {"weights": "uniform"},
        "training": {"batch_size": 8, "learning_rate": 0.05},
        "privacy": {"clip_norm": 1.0},
        "cohort": {"min_clients": 2},
    }
    for option in options:
        for name, fields in option.items():
            sections[name] = {**sections.get(name, {}), **fields}
    return toy.plan(rounds=2, **sections)


def params(what: toy.Plan) -> Params:
    store = MemoryStore()
    run = toy.open_toy(store, what)
    records, evaluations = toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    assert not any(record.dropped for record in records)
    assert all(evaluation.summary["overall"] for evaluation in evaluations)
    return load_state(run, what.rounds).params


@cache
def in_the_open(*names: str) -> Params:
    """Of the plain run with these options, which is the same for every mode."""
    together = [OPTIONS[name] for name in names]
    plain = [{k: v for k, v in one.items() if k != "secure_aggregation"} for one in together]
    return params(plan(*plain))


def goes_with(mode: str, option: str) -> bool:
    return option != "neighbours" or mode not in WITHOUT_MASKS


TOGETHER = set(OPTIONS) - {
    "neighbours",  # two sites have no two of them
    "noise by subject",  # a plan hides one unit, and what weights would tell is told no more
}
EVERYTHING = [name for name in OPTIONS if name in TOGETHER]
CASES = [
    pytest.param(mode, names, id=f"{mode.name}-{'+'.join(names)}")
    for mode in SECURE
    for names in (*([name] for name in OPTIONS if goes_with(mode.name, name)), EVERYTHING)
]


@pytest.mark.parametrize(("mode", "names"), CASES)
def test_the_model_is_the_plain_runs(mode: Any, names: list[str]) -> None:
    together = [OPTIONS[name] for name in names]
    wanted, found = in_the_open(*names), params(plan(mode.fields, *together))
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4)
