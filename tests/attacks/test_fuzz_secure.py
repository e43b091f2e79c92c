"""Malformed orders at a site, and malformed messages of a secure round at the server.

Of orders, OrderRefused and nothing else comes out. A secure round goes on without the site, or ends
with the temporary error, and with nothing revealed.
"""

from __future__ import annotations

import base64
import functools
import json
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import toy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from malformed import Change, altered, changes, content, fuzzed, inside, odd_json, parts, places

from fedcore.errors import BlobError, OrderRefused, QuorumNotReached
from fedcore.records import RoundRecord, TrainOrder
from fedcore.server import orders
from fedcore.server.run import load_state
from fedcore.store import blobs, envelope
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

ORDER_KEY = "orders/north/run-1/000000.json"


def sealed_order() -> bytes:
    """The first order to north."""
    store = MemoryStore()
    orders.train_orders(toy.open_toy(store, toy.plan()), 0)
    return store.get(ORDER_KEY)


SEALED = sealed_order()
PAYLOAD = json.loads(json.loads(SEALED)["payload"])
ORDER = TrainOrder(**PAYLOAD)


def received(data: bytes) -> str:
    """Why north refuses these bytes as its first order; "" if it does not."""
    store = MemoryStore()
    store.put(ORDER_KEY, data)
    try:
        Exchange(store).order("north", "run-1", 0, toy.KEY.public_key())
    except OrderRefused as error:
        return str(error)
    return ""


@fuzzed
@given(st.data())
def test_orders_that_the_server_never_signed(data: st.DataObject) -> None:
    """Changed anywhere: what is taken is, byte for byte, a payload that the server signed."""
    position = st.integers(0, len(SEALED) - 1)
    odd = data.draw(st.one_of(
        st.binary(max_size=64),
        st.tuples(position, st.integers(0, 7)).map(
            lambda flip: SEALED[: flip[0]] + bytes([SEALED[flip[0]] ^ 1 << flip[1]])
            + SEALED[flip[0] + 1 :]
        ),
        position.map(lambda end: SEALED[:end]),
        st.tuples(st.sampled_from([(), ("payload",), ("signature",)]), odd_json).map(
            lambda change: json.dumps(altered(json.loads(SEALED), *change)).encode()
        ),
    ))  # fmt: skip
    if not received(odd):
        assert json.loads(odd)["payload"] == json.loads(SEALED)["payload"]


@fuzzed
@given(st.sampled_from(list(places(PAYLOAD))), odd_json)
@example(("seq",), "0")  # a text is no number, even where it reads as one
@example(("round_num",), False)
def test_orders_that_are_signed_and_odd(path: tuple[Any, ...], odd: Any) -> None:
    """A server gone mad: what is taken is a whole order, for this place."""
    payload = altered(PAYLOAD, path, odd)
    data = envelope.seal(json.dumps(payload).encode(), toy.KEY)
    if not received(data):
        assert (payload["site"], payload["run_id"], payload["seq"]) == ("north", "run-1", 0)


@pytest.mark.parametrize("text", [
    "[" * 100_000, "9" * 5000, '{"payload": "' + "[" * 900 + '", "signature": ""}', "\ud800",
    '{"payload": "\\ud800", "signature": "AAAA"}', '{"payload": 1, "signature": 1}', "null", "",
])  # fmt: skip
def test_orders_that_are_no_envelope(text: str) -> None:
    assert received(text.encode("utf-8", "surrogatepass"))


RELAY = {
    "run_id": "run-1", "site": "north", "seq": 0, "order_digest": "x", "step": "roster",
    "body": {"keys": [{"site": "east"}]}, "kind": "relay",
}  # fmt: skip


@fuzzed
@given(st.sampled_from(list(places(RELAY))), odd_json, st.booleans())
def test_what_is_passed_on_in_a_secure_round(path: tuple[Any, ...], odd: Any, signed: bool) -> None:
    """Only what the server signed for this step of this order comes through."""
    relay = json.dumps(altered(RELAY, path, odd)).encode()
    store = MemoryStore()
    store.put("orders/north/run-1/000000.roster.json",
              envelope.seal(relay, toy.KEY) if signed else relay)  # fmt: skip
    try:
        came = Exchange(store).relay(ORDER, "x", "roster", toy.KEY.public_key())
    except OrderRefused:
        return
    assert signed
    assert came is not None
    found = (came.site, came.run_id, came.seq, came.order_digest, came.step)
    assert found == ("north", "run-1", 0, "x", "roster")


def test_an_oversized_order_is_not_read() -> None:
    with pytest.raises(BlobError, match="are accepted"):
        received(bytes(1 << 21))


# Rounds behind masks: one site's message at one step, malformed.


class TamperingStore(MemoryStore):
    """Changes what west puts as one step of its first round."""

    def __init__(self, step: str, change: Change) -> None:
        super().__init__()
        self._ending = "/000000.safetensors" if step == "update" else f".{step}.safetensors"
        self._change = change
        self.seen = b""

    def create(self, key: str, data: bytes) -> bool:
        if key.startswith("replies/west/run-1/000000") and key.endswith(self._ending):
            self.seen = content(data)
            data = self._change(self.seen)
        return super().create(key, data)


SECURE = toy.plan(
    rounds=1,
    aggregation={"weights": "uniform"},
    secure_aggregation={"mode": "masks", "threshold": 2},
)
STEPS = ("keys", "shares", "update", "consistency", "unmask")


def secure_round(store: TamperingStore) -> RoundRecord | None:
    """The round's record, or None if it ended with the temporary error and revealed nothing."""
    run = toy.open_toy(store, SECURE)
    launcher = toy.InlineLauncher(store, toy.site_stores())
    try:
        (record,), _ = toy.play(run, launcher)
    except QuorumNotReached as error:
        if "no update was revealed" not in str(error):
            raise
        return None
    assert len(record.weights) >= 2
    assert all(np.isfinite(array).all() for array in load_state(run, 1).params.values())
    return record


def said(step: str) -> bytes:
    """What west says as this step when nobody tampers."""
    store = TamperingStore(step, lambda data: data)
    record = secure_round(store)
    assert record is not None
    assert "west" in record.weights
    return store.seen


HONEST = {step: said(step) for step in STEPS}


@pytest.mark.parametrize("step", STEPS)
def test_junk_at_a_step_of_a_secure_round_counts_as_silence(step: str) -> None:
    record = secure_round(TamperingStore(step, lambda _: b"junk"))
    assert record is not None
    assert {"east", "north"} <= set(record.weights)
    assert ("west" in record.dropped) == (step in ("keys", "shares", "update"))
    if "west" in record.dropped:
        assert "safetensors" in record.dropped["west"]


@pytest.mark.parametrize("step", STEPS)
@settings(fuzzed, max_examples=25)
@given(st.data())
def test_a_secure_round_goes_on_or_can_be_begun_anew(step: str, data: st.DataObject) -> None:
    secure_round(TamperingStore(step, data.draw(changes(HONEST[step]))))


@pytest.mark.parametrize("reader", ["east", "north", "west"])
def test_shares_that_one_site_cannot_open(reader: str) -> None:
    """Who cannot open west's shares takes no part; where that is too few, nothing is revealed."""

    def tampered(data: bytes) -> bytes:
        fields = json.loads(parts(data)[0]["__metadata__"]["fedcore"])
        path = next(path for path in places(fields) if path[-1:] == (reader,))
        sealed = bytearray(base64.b64decode(functools.reduce(operator.getitem, path, fields)))
        sealed[len(sealed) // 2] ^= 1
        return inside(path, base64.b64encode(sealed).decode())(data)

    store = TamperingStore("shares", tampered)
    run = toy.open_toy(store, SECURE)
    (record,), _ = toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    assert "the shares of west cannot be opened" in record.dropped[reader]
    assert len(record.weights) == 2


@pytest.mark.parametrize("change", [
    lambda words: words.astype(np.uint64), lambda words: words.astype(np.float32),
    lambda words: words[:-1], lambda words: words.reshape(1, -1),
    lambda words: np.append(words, words[:1]), lambda words: words[:0],
], ids=["uint64", "float32", "short", "2-d", "long", "empty"])  # fmt: skip
def test_masked_words_that_would_not_fit_the_sum(change: Callable[[Any], Any]) -> None:
    def tampered(data: bytes) -> bytes:
        arrays, header = blobs.unpack(data)
        return blobs.pack({"masked": change(arrays["masked"])}, header)

    record = secure_round(TamperingStore("update", tampered))
    assert record is not None
    assert "west" in record.dropped
