"""The study's bookkeeping, and that what it trains is coded as a run codes it."""

from __future__ import annotations

import pytest
import toy
from coded import CODINGS

from fedcore.demo.plan import Choices, plan_of
from fedcore.params import digest
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from studies import bytes as study
from studies import federation
from studies.bytes import Trained, compared


@pytest.mark.parametrize("name", ["signs of the largest, both ways", "low rank"])
def test_in_one_process_it_is_a_real_runs_params_and_bytes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = toy.plan(rounds=4, compression=CODINGS[name])
    store, data = MemoryStore(), toy.site_stores()
    run = toy.open_toy(store, plan)
    records, _ = toy.play(run, toy.InlineLauncher(store, data))
    monkeypatch.setattr(federation, "_on_what_is_read", lambda plan: plan)
    traffic = federation.Traffic()
    params = federation.trained(plan, data, traffic)
    assert digest(params) == digest(load_state(run, 4).shared)
    # But for how long the download took, which replies tell, and digits of other times.
    assert traffic.up == pytest.approx(sum(record.bytes_up for record in records), rel=0.1)


def test_what_the_demo_does_is_among_what_is_compared() -> None:
    assert plan_of(Choices(compress=True)).compression == study.SETTINGS[study.DEMO]


def test_differences_are_seed_by_seed() -> None:
    found = {study.FLOAT32: {0: 0.9, 1: 0.5, 2: 0.1}, "coded": {0: 0.8, 1: 0.6, 3: 1.0}}
    runs = [
        Trained(setting, seed, auc, of_the_demo=auc, up=10, down=10 + seed, as_float32=600)
        for setting, by_seed in found.items()
        for seed, auc in by_seed.items()
    ]
    (row,) = compared(runs)
    assert (row.setting, row.seeds) == ("coded", [0, 1])
    assert row.difference == pytest.approx(0.0)
    assert row.spread == pytest.approx(0.1414, abs=1e-4)
    assert row.times_fewer == pytest.approx(600 / 21, abs=0.01), "of the seed with the most bytes"
