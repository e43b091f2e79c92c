"""Whole runs of the generative model, as one more plan: in every mode, and with every noise."""

from __future__ import annotations

from typing import Any

import means
import numpy as np
import pytest
import toy

from fedcore.params import digest, modules
from fedcore.server.run import Run, load_state
from fedcore.store.memory import MemoryStore

UNIFORM = {"weights": "uniform"}
SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 3}
MODES: dict[str, dict[str, Any]] = {
    "masks, and few values": {
        "aggregation": UNIFORM,
        "secure_aggregation": {"mode": "masks"},
        "compression": {"up": [{"stage": "subsample", "every": 2}], "feedback": True},
    },
    "coded": {
        "compression": {
            "up": [{"stage": "top_k", "share": 0.2}, {"stage": "quantise", "bits": 4}],
            "feedback": True,
        }
    },
    "noise for each site": {
        "aggregation": UNIFORM,
        "privacy": {"clip_norm": 5.0, "noise_multiplier": 0.5},
    },
    "noise for each subject": {
        "aggregation": UNIFORM,
        "privacy": {"clip_norm": 100.0, "subject": SUBJECT},
    },
}


def played(what: Any) -> tuple[Run, list[Any], list[Any]]:
    """One of the three sites has no PET."""
    store, data = MemoryStore(), toy.site_stores()
    data["west"].put("no-pet", b"")
    run = toy.open_toy(store, what)
    records, evaluations = toy.play(run, means.launcher(store, data))
    return run, records, evaluations


def test_it_learns_the_classes_from_whatever_each_site_has() -> None:
    run, records, evaluations = played(means.plan())
    assert evaluations[-1].summary["overall"]["macro_auc"]["value"] > 0.95
    weights = records[-1].weights
    assert "encoder.pet" in weights["east"]
    assert "encoder.pet" not in weights["west"]
    again, _, _ = played(means.plan())
    assert digest(load_state(run, 3).params) == digest(load_state(again, 3).params)


@pytest.mark.parametrize("mode", MODES)
def test_every_site_takes_part_in_every_mode(mode: str) -> None:
    what = means.plan(rounds=1, **MODES[mode])
    run, records, evaluations = played(what)
    assert not records[0].dropped
    assert not evaluations[0].missing
    begin, end = (load_state(run, n).params for n in (0, 1))
    assert all(np.isfinite(array).all() for array in end.values())
    moved = modules(name for name in end if not np.array_equal(begin[name], end[name]))
    assert moved == ("encoder.flair", "encoder.pet", "encoder.t1ce", "prior")
