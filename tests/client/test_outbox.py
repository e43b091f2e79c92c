"""What leaves a site: nothing that is not in the site's egress record, and one thing in a place."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import toy
from faults import FaultyStore, Killed

from fedcore.client.loop import Client
from fedcore.privacy.accounting import GaussianEvent, epsilon
from fedcore.records import Refusal
from fedcore.server import orders
from fedcore.store.api import Store
from fedcore.store.egress import Entry, check
from fedcore.store.exchange import Exchange
from fedcore.store.identity import egress_head
from fedcore.store.memory import MemoryStore

PLAIN = toy.plan(
    privacy={"clip_norm": 1.0, "noise_multiplier": 0.5}, aggregation={"weights": "uniform"}
)
MASKS: dict[str, Any] = {
    "aggregation": {"weights": "uniform"},
    "secure_aggregation": {"mode": "masks", "threshold": 2},
}


def played(what: toy.Plan) -> tuple[MemoryStore, dict[str, list[Entry]]]:
    """The exchange after a run, and each site's record."""
    exchange, data = MemoryStore(), toy.site_stores()
    run = toy.open_toy(exchange, what)
    toy.play(run, toy.InlineLauncher(exchange, data))
    records = {}
    for site, store in data.items():
        checked = check(store)
        assert checked.fault is None
        assert checked.signers
        records[site] = checked.entries
    return exchange, records


@pytest.mark.parametrize("what", [PLAIN, toy.plan(rounds=1, **MASKS)], ids=["plain", "masks"])
def test_every_object_that_left_is_in_the_record_as_it_left(what: toy.Plan) -> None:
    exchange, records = played(what)
    for site, entries in records.items():
        left = {key: exchange.get(key) for key in exchange.list(f"replies/{site}/")}
        noted = {entry.destination: (entry.bytes, entry.sha256) for entry in entries}
        assert noted == {k: (len(d), hashlib.sha256(d).hexdigest()) for k, d in left.items()}


def test_what_an_entry_says() -> None:
    _, records = played(PLAIN)
    update, evaluation, later, _ = records["north"]
    assert (update.kind, update.protection, update.round_num) == ("ClientUpdate", "plain", 0)
    assert (evaluation.kind, evaluation.protection) == ("Evaluation", "plain")
    assert update.purpose == "research"
    assert update.plan_digest == PLAIN.digest
    assert (update.clip_norm, update.noise_multiplier) == (1.0, 0.5)
    assert update.update_norm is not None
    assert update.epsilon == pytest.approx(epsilon([GaussianEvent(0.5, 2)], 1e-5))
    assert later.epsilon == update.epsilon, "the run was charged whole"
    assert later.spend != update.spend, "but each update has an entry in the budget ledger"
    assert (evaluation.epsilon, evaluation.spend) == (None, None)


def test_in_a_secure_round_each_message_is_an_entry() -> None:
    _, records = played(toy.plan(rounds=1, **MASKS))
    said = {entry.kind: entry.protection for entry in records["north"]}
    assert said == {
        "keys": "none",
        "shares": "none",
        "masked_input": "masked",
        "consistency": "none",
        "unmask": "none",
        "Evaluation": "plain",
    }


def test_each_reply_bears_witness_of_the_entry_before_it() -> None:
    exchange, data = MemoryStore(), toy.site_stores()
    toy.play(toy.open_toy(exchange, PLAIN), toy.InlineLauncher(exchange, data))
    checked = check(data["north"])
    heads = ["0" * 64, *checked.heads]
    for entry in checked.entries:
        assert egress_head(exchange.get(entry.destination)).hex() == heads[entry.number - 1]


class Asked:
    """North, asked to train."""

    def __init__(self) -> None:
        self.store, self.data = MemoryStore(), toy.site_store("north")
        orders.train_orders(toy.open_toy(self.store, PLAIN), 0)

    def client(self, exchange: Store | None = None, data: Store | None = None) -> Client:
        return Client(
            toy.policy("north"),
            Exchange(exchange or self.store),
            data or self.data,
            partner=toy.partner("north"),
        )

    def answer(self, client: Client) -> None:
        for reply in client.replies("run-1", 0):
            assert reply is not None
            client.send(reply)

    @property
    def entries(self) -> list[Entry]:
        checked = check(self.data)
        assert checked.fault is None
        return checked.entries


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_killed_between_note_and_put_it_is_sent_and_the_record_says_what_left(
    asked: Asked,
) -> None:
    faulty = FaultyStore(asked.store, at=-1)
    asked.answer(asked.client(exchange=faulty))
    (key,) = asked.store.list("replies/north/")
    asked.store.delete(key)
    noted = asked.entries
    asked.answer(asked.client())
    assert asked.entries[: len(noted)] == noted
    left = hashlib.sha256(asked.store.get(key)).hexdigest()
    assert asked.entries[-1].sha256 == left
    assert {entry.content for entry in asked.entries} == {noted[0].content}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_operation_on_its_own_bucket(before: bool) -> None:
    at, finished = 0, False
    while not finished:
        asked = Asked()
        try:
            asked.answer(asked.client(data=FaultyStore(asked.data, at, before=before)))
            finished = True
        except Killed:
            asked.answer(asked.client())
        (key,) = asked.store.list("replies/north/")
        assert asked.entries[-1].sha256 == hashlib.sha256(asked.store.get(key)).hexdigest()
        assert len({entry.content for entry in asked.entries}) == 1
        at += 1
    assert at > 4


def test_what_left_is_not_noted_again(asked: Asked) -> None:
    asked.answer(asked.client())
    asked.answer(asked.client())
    assert len(asked.entries) == 1


def test_another_content_for_the_place_is_refused(asked: Asked) -> None:
    """The server empties the place and asks again, while the site's data has changed."""
    asked.answer(asked.client())
    (key,) = asked.store.list("replies/north/")
    asked.store.delete(key)
    asked.data.put("table.csv", toy.table("north", rows=64))
    asked.answer(asked.client())
    reply, _ = Exchange(asked.store).reply(asked_order(asked))
    assert isinstance(reply, Refusal)
    assert "one thing in one place" in reply.reason
    assert [entry.kind for entry in asked.entries] == ["ClientUpdate", "Refusal"]


def asked_order(asked: Asked) -> Any:
    run = toy.open_toy(asked.store, PLAIN)
    return next(order for order in orders.train_orders(run, 0) if order.site == "north")


def test_a_warm_client_pays_one_small_write_a_reply() -> None:
    exchange, data = MemoryStore(), toy.site_stores()
    counting = FaultyStore(data["north"], at=-1)
    launcher = toy.InlineLauncher(exchange, {**data, "north": counting})
    toy.play(toy.open_toy(exchange, PLAIN), launcher)
    own = [operation for operation in counting.operations if "fedcore/egress" in operation]
    assert own[0].startswith("list")
    assert [operation.split()[0] for operation in own[1:]] == ["create"] * 4
