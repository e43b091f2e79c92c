"""Real client processes that stay away: the round goes on without them, and its record says why."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import toy

from fedcore.config.plan import Plan
from fedcore.errors import QuorumNotReached
from fedcore.launch.process import ProcessLauncher
from fedcore.params import digest
from fedcore.records import RoundRecord, TrainOrder
from fedcore.server import evaluation, orders, replies, rounds
from fedcore.server.run import Run, load_state
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.memory import MemoryStore

pytestmark = pytest.mark.e2e

SUPPORT = Path(toy.__file__).parent


@dataclass(frozen=True)
class Federation:
    """A run whose sites are processes, and what a test does to them."""

    run: Run
    launcher: ProcessLauncher
    policies: Path

    def train(self, round_num: int) -> RoundRecord:
        """Order and aggregate one round."""
        asked = orders.train_orders(self.run, round_num)
        dropped = replies.await_replies(self.run, asked, self.launcher)
        return rounds.aggregate(self.run, round_num, asked, dropped)

    def evaluate(self, round_num: int) -> None:
        """Let all sites evaluate what ``round_num`` came to."""
        asked = orders.eval_orders(self.run, round_num + 1, "validation")
        absent = replies.await_replies(self.run, asked, self.launcher)
        evaluation.evaluate(self.run, asked, absent)

    def warm_up(self, asked: Sequence[TrainOrder]) -> None:
        """Returns when these are answered: the start of a client is not held against it."""
        for order in asked:
            self.launcher.ensure(order)
        for order in asked:
            until(lambda order=order: self.run.exchange.has_reply(order.site, "run-1", order.seq))

    def signal(self, site: str, number: int) -> None:
        """Send ``number`` to the site's client."""
        os.kill(self.launcher._clients[site].child_pid, number)

    def replace(self, site: str, **allow: object) -> None:
        """The site changes its policy and starts its client anew, as it may at any time."""
        policy = toy.policy(site, **allow).model_dump(mode="json")
        (self.policies / f"{site}.yaml").write_text(json.dumps(policy))
        self.restart(site)

    def restart(self, site: str) -> None:
        """The client dies; the launcher notices when it is asked next."""
        self.signal(site, signal.SIGKILL)
        until(lambda: self.launcher.poll(site).state == "failed")


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@contextmanager
def federation(folder: Path, plan: Plan) -> Iterator[Federation]:
    """Three sites, each with a folder of data, a policy file and a client."""
    policies = folder / "policies"
    for part in ("policies", "exchange", *toy.SITES):
        (folder / part).mkdir()
    environments = {}
    for site in toy.SITES:
        FilesystemStore(folder / site).put("table.csv", toy.table(site))
        text = json.dumps(toy.policy(site).model_dump(mode="json"))
        (policies / f"{site}.yaml").write_text(text)
        environments[site] = {
            "FEDCORE_POLICY": str(policies / f"{site}.yaml"),
            "FEDCORE_EXCHANGE": json.dumps({"folder": str(folder / "exchange")}),
            "FEDCORE_DATA": json.dumps({"folder": str(folder / site)}),
            "PYTHONPATH": str(SUPPORT),
        }
    launcher = ProcessLauncher(environments, folder / "logs")
    try:
        yield Federation(
            toy.open_toy(FilesystemStore(folder / "exchange"), plan), launcher, policies
        )
    finally:
        launcher.close()


def test_a_client_that_stays_away_is_a_dropout(tmp_path: Path) -> None:
    """It hangs for a round and is back in the next, with the params that it would have had."""
    plan = toy.plan(rounds=3, timeouts={"round": 10, "idle": 120, "poll": 0.02})
    with federation(tmp_path, plan) as it:
        it.warm_up(orders.train_orders(it.run, 0))
        assert it.train(0).dropped == {}
        it.evaluate(0)
        it.signal("north", signal.SIGSTOP)
        record = it.train(1)
        it.signal("north", signal.SIGCONT)
        it.evaluate(1)
        last = it.train(2)
    assert record.dropped == {"north": "no reply within 10 s"}
    assert record.cohort == toy.SITES
    assert "north" not in record.data
    assert {"east", "west"} <= set(record.data)
    assert last.dropped == {}
    assert digest(load_state(it.run, 3).params) == _without("north", plan)


def _without(site: str, plan: Plan) -> str:
    """What the same run comes to in memory, where ``site`` is away in round 1."""
    store = MemoryStore()
    run, data = toy.open_toy(store, plan), toy.site_stores()
    for round_num in range(plan.rounds):
        absent = frozenset({site} if round_num == 1 else ())
        asked = orders.train_orders(run, round_num)
        dropped = replies.await_replies(run, asked, toy.InlineLauncher(store, data, absent=absent))
        rounds.aggregate(run, round_num, asked, dropped)
    return digest(load_state(run, plan.rounds).params)


def test_a_site_that_says_no_and_a_client_that_cannot_start_are_dropouts(tmp_path: Path) -> None:
    """Neither is waited for, whatever the round's deadline."""
    plan = toy.plan(rounds=3, timeouts={"round": 240, "idle": 240, "poll": 0.02})
    with federation(tmp_path, plan) as it:
        began = time.monotonic()
        assert it.train(0).dropped == {}
        it.evaluate(0)
        it.replace("north", purposes=["another-study"])
        refused = it.train(1)
        it.evaluate(1)
        it.replace("north")
        (it.policies / "west.yaml").write_text("site: [")
        it.restart("west")
        broken = it.train(2)
        assert time.monotonic() - began < 240, "one of them was waited for"
    assert set(refused.dropped) == {"north"}
    assert "purpose" in refused.dropped["north"]
    assert set(broken.dropped) == {"west"}
    assert "exit code 78" in broken.dropped["west"]
    assert "west.yaml" in broken.dropped["west"]


def test_too_few_clients_end_the_round_and_lose_nothing(tmp_path: Path) -> None:
    """The same round is tried again once they are back."""
    plan = toy.plan(
        rounds=1, cohort={"min_clients": 3}, timeouts={"round": 5, "idle": 120, "poll": 0.02}
    )
    with federation(tmp_path, plan) as it:
        first, *others = orders.train_orders(it.run, 0)
        it.launcher.ensure(first)
        it.signal("east", signal.SIGSTOP)
        it.warm_up(others)
        with pytest.raises(QuorumNotReached, match="east: no reply within 5 s") as caught:
            it.train(0)
        assert caught.value.exit_code == 75
        it.signal("east", signal.SIGCONT)
        it.warm_up([first])
        assert it.train(0).dropped == {}
