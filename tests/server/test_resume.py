"""Killed at any operation on the store, the run goes on and ends with the same params.

This goes through every operation of a run, one test per role: the process dies before it, or
after it was done but before the answer came back.
"""

from __future__ import annotations

import pytest
import toy
from faults import FaultyStore, Killed, deaths

from fedcore.errors import StoreUnavailable, TemporaryError
from fedcore.launch.api import Launcher
from fedcore.params import digest
from fedcore.server.run import load_state
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

PLAN = toy.plan(privacy={"clip_norm": 1.0, "noise_multiplier": 0.5, "noise_source": "seeded"},
                aggregation={"weights": "uniform", "server_momentum": 0.5})  # fmt: skip


@pytest.fixture
def undisturbed() -> str:
    store = MemoryStore()
    run = toy.open_toy(store, PLAN)
    toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    return digest(load_state(run, PLAN.rounds).params)


def play(server: Store, launcher: Launcher) -> str:
    run = toy.open_toy(server, PLAN)
    toy.play(run, launcher)
    return digest(load_state(run, PLAN.rounds).params)


def operations_of_the_server() -> list[str]:
    store = MemoryStore()
    counting = FaultyStore(store, at=-1)
    play(counting, toy.InlineLauncher(store, toy.site_stores()))
    return counting.operations


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_server_killed_at_every_operation(undisturbed: str, before: bool) -> None:
    operations = operations_of_the_server()
    assert len(operations) > 50, "the run must have enough boundaries for this to mean something"
    for at in deaths(operations, before=before):
        store = MemoryStore()
        launcher = toy.InlineLauncher(store, toy.site_stores())
        with pytest.raises(Killed):
            play(FaultyStore(store, at, before=before), launcher)
        assert play(store, launcher) == undisturbed, f"killed at operation {at}"


@pytest.mark.parametrize("stage", ["start", "middle", "commit"])
def test_store_out_of_reach_is_temporary_and_loses_nothing(undisturbed: str, stage: str) -> None:
    store = MemoryStore()
    launcher = toy.InlineLauncher(store, toy.site_stores())
    total = len(operations_of_the_server())
    at = {"start": 0, "middle": total // 2, "commit": _commit()}[stage]
    broken = FaultyStore(store, at, fault=StoreUnavailable, forever=True)
    with pytest.raises(TemporaryError):
        play(broken, launcher)
    assert play(store, launcher) == undisturbed


def _commit() -> int:
    return operations_of_the_server().index("create records/run-1/rounds/00000/record.json")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_client_killed_at_every_operation(undisturbed: str, before: bool) -> None:
    """A client started again in the middle of its order sends the same update."""

    def attempt(at: int) -> tuple[str, list[str]]:
        store, data = MemoryStore(), toy.site_stores()
        faulty = FaultyStore(store, at, before=before)
        launcher = toy.InlineLauncher(faulty, data)
        try:
            return play(store, launcher), faulty.operations
        except Killed:
            return play(store, toy.InlineLauncher(store, data)), faulty.operations

    result, operations = attempt(-1)
    assert result == undisturbed
    for at in deaths(operations, before=before):
        assert attempt(at)[0] == undisturbed, f"killed at operation {at}"


def test_noise_is_never_drawn_twice() -> None:
    """With the system's noise, whatever was stored first is what every attempt uses."""
    plan = PLAN.model_copy(
        update={"privacy": PLAN.privacy.model_copy(update={"noise_source": "os"})}
    )
    store = MemoryStore()
    launcher = toy.InlineLauncher(store, toy.site_stores())
    counting = FaultyStore(store, at=-1)
    toy.play(toy.open_toy(counting, plan), launcher)
    drawn = counting.operations.index("create records/run-1/rounds/00001/state.safetensors")

    store = MemoryStore()
    launcher = toy.InlineLauncher(store, toy.site_stores())
    with pytest.raises(Killed):
        toy.play(toy.open_toy(FaultyStore(store, drawn, before=False), plan), launcher)
    first = store.get("records/run-1/rounds/00001/state.safetensors")
    assert not store.exists("params/run-1/00001.safetensors"), "nothing was released yet"
    run = toy.open_toy(store, plan)
    toy.play(run, launcher)
    assert store.get("records/run-1/rounds/00001/state.safetensors") == first
    assert digest(run.exchange.params("run-1", 1, _digest(run, 1))[0]) == _digest(run, 1)


def _digest(run: toy.Run, round_num: int) -> str:
    return digest(load_state(run, round_num).params)
