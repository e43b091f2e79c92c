"""Malformed messages, by the hundred: refused with a reason, and the round goes on with the others.

``tests/store/test_blobs.py`` fuzzes the file format against the safetensors library, and
``test_updates.py`` names the lies of a well-formed update. Here is what lies between: any bytes
where an update or an evaluation was expected, and how much memory reading them takes.
``test_fuzz_secure.py`` does the same for orders and for the messages of a secure round.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from malformed import (
    Change,
    around,
    blob,
    changes,
    content,
    flipped,
    fuzzed,
    inside,
    parts,
    places,
)

from fedcore.errors import BlobError, UpdateRejected
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server import evaluation, orders, rounds
from fedcore.server.run import Run, load_state
from fedcore.store import blobs
from fedcore.store.identity import sign_reply
from fedcore.store.memory import MemoryStore


class Case:
    """A round and an evaluation that all sites answered; ``with_reply`` replaces north's."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        run = toy.open_toy(self.store, toy.plan())
        launcher = toy.InlineLauncher(self.store, toy.site_stores())
        self.train = orders.train_orders(run, 0)
        self.check = orders.eval_orders(run, 0, "validation")
        for order in (*self.train, *self.check):
            launcher.ensure(order)
        self.key, self.check_key = (
            f"replies/north/run-1/{order.seq:06d}.safetensors"
            for order in (self.train[0], self.check[0])
        )
        self.order = next(order for order in self.train if order.site == "north")
        self.good, self.good_check = map(content, map(self.store.get, (self.key, self.check_key)))

    def with_reply(self, key: str, data: bytes) -> Run:
        """The run over a copy of the store, with these bytes under ``key``."""
        copy = MemoryStore()
        for name in self.store.list():
            copy.put(name, self.store.get(name))
        copy.put(key, data)
        return toy.open_toy(copy, toy.plan())


CASE = Case()


def goes_on(data: bytes) -> RoundRecord:
    """Sum the round with these bytes as north's reply: the others count, and it counts or not."""
    run = CASE.with_reply(CASE.key, data)
    record: RoundRecord = rounds.aggregate(run, 0, CASE.train, {})
    assert {"east", "west"} <= set(record.weights)
    assert ("north" in record.weights) != bool(record.dropped.get("north"))
    assert all(np.isfinite(array).all() for array in load_state(run, 1).params.values())
    return record


def is_evaluated(data: bytes) -> EvaluationRecord:
    """The same of an evaluation."""
    run = CASE.with_reply(CASE.check_key, data)
    record: EvaluationRecord = evaluation.evaluate(run, CASE.check, {})
    assert {"east", "west"} <= set(record.sites)
    assert ("north" in record.sites) != bool(record.missing.get("north"))
    return record


def test_nothing_but_the_fault_is_what_is_refused() -> None:
    signed = sign_reply(CASE.good, toy.IDENTITIES["north"])
    assert all("north" in goes_on(data).weights for data in (CASE.good, signed))
    assert "north" in is_evaluated(CASE.good_check).sites


@fuzzed
@given(st.integers(0, 8 * 200 - 1))
def test_a_signed_reply_with_one_bit_changed(bit: int) -> None:
    signed = sign_reply(CASE.good, toy.IDENTITIES["north"])
    assert goes_on(flipped([bit])(signed)).dropped["north"]


@fuzzed
@given(changes(CASE.good))
def test_a_round_goes_on_whatever_one_site_sends(change: Change) -> None:
    goes_on(change(CASE.good))


@fuzzed
@given(changes(CASE.good_check))
def test_an_evaluation_goes_on_whatever_one_site_sends(change: Change) -> None:
    is_evaluated(change(CASE.good_check))


ODD = [
    None, True, -1, 2**53, 2**64, 10**400, -(10**400), 0.5, 1e308, float("nan"), float("inf"),
    "\ud800", "../../params", [], {}, {"": None}, {"a": 10**400},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_every_field_of_a_reply_odd_in_turn(odd: Any) -> None:
    """Each alone, so that none hides behind a fault found before it."""
    for good, act in ((CASE.good, goes_on), (CASE.good_check, is_evaluated)):
        header, _ = parts(good)
        for path in places(json.loads(header["__metadata__"]["fedcore"])):
            act(inside(path, odd)(good))
        for path in places(header):
            act(around(path, odd)(good))


def test_of_two_values_for_one_key_either_is_refused_or_the_last_is_meant() -> None:
    header, body = parts(CASE.good)
    inner = header["__metadata__"]["fedcore"]
    twice = inner.replace('"site":"north"', '"site":"east","site":"north"')
    assert twice != inner
    goes_on(blob(json.dumps({**header, "__metadata__": {"fedcore": twice}}), body))
    name = next(name for name in header if name != "__metadata__")
    text = json.dumps(header)
    for other in ('{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', "1", "{}"):
        goes_on(blob(f'{{"{name}":{other},{text[1:]}', body))
        record = goes_on(blob(f'{text[:-1]},"{name}":{other}}}', body))
        assert (
            "not a safetensors blob" in record.dropped["north"] or "lie" in record.dropped["north"]
        )


@pytest.mark.parametrize("depth", [50, 500, 900, 990, 1100, 5000])
@pytest.mark.parametrize("place", ["kind", "fields", "weights", "header"])
def test_deep_json(depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    text = {"kind": f'{{"kind":{deep}}}', "fields": f'{{"kind":"ClientUpdate","fields":{deep}}}',
            "weights": f'{{"kind":"ClientUpdate","fields":{{"weights":{deep}}}}}'}  # fmt: skip
    header = deep if place == "header" else json.dumps({"__metadata__": {"fedcore": text[place]}})
    assert goes_on(blob(header, b"")).dropped["north"]


@pytest.mark.parametrize("dtype", ["F64", "F16", "I64", "I32", "I8", "U8", "U32", "U64"])
def test_an_update_of_another_type(dtype: str) -> None:
    """The same values in another type, laid out right."""
    arrays, header = blobs.unpack(CASE.good)
    kinds = {"F": "f", "I": "i", "U": "u"}
    wanted = np.dtype(f"{kinds[dtype[0]]}{int(dtype[1:]) // 8}")
    cast = {name: array.astype(wanted) for name, array in arrays.items()}
    assert "dtype" in goes_on(blobs.pack(cast, header)).dropped["north"]


def with_statistics(change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    arrays, header = blobs.unpack(CASE.good_check)
    return blobs.pack({**arrays, **change(arrays)}, header)


LIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "adds up to infinity": lambda _: {"sex/suppressed": np.full(1, 1.7e308)},
    "of another shape": lambda _: {"sex/suppressed": np.ones(2)},
    "no room for another's": lambda arrays: {
        k: v * (2**53 // max(a.max() for a in arrays.values())) for k, v in arrays.items()
    },
    "not a number": lambda arrays: {k: np.full_like(v, np.nan) for k, v in arrays.items()},
    "less than nobody": lambda arrays: {k: -v for k, v in arrays.items()},
    "of nothing known": lambda _: {"backdoor/confusion": np.ones((2, 2))},
    "without a name": lambda _: {"": np.ones(1)},
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_statistics_that_would_spoil_the_sum(
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    assert is_evaluated(with_statistics(change)).missing["north"]


def bombs(size: int) -> dict[str, str]:
    """Headers of about ``size`` characters that are costly to read, or say more than there is."""
    many = range(size // 9)
    vast = '{"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}'
    empty = '{"dtype":"F64","shape":[0,9223372036854775807],"data_offsets":[0,0]}'
    wraps = '{"dtype":"F64","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}'

    def inner(text: str) -> str:
        return json.dumps({"__metadata__": {"fedcore": text}})

    return {
        "vast": f'{{"w":{vast}}}',
        "empty": f'{{"w":{empty}}}',
        "wraps": f'{{"w":{wraps}}}',
        "entries": "{" + ",".join(f'"{i:x}":{{}}' for i in many) + "}",
        "tensors": "{" + ",".join(f'"{i:x}":{empty}' for i in range(size // 70)) + "}",
        "metadata": '{"__metadata__":{' + ",".join(f'"{i:x}":1' for i in many) + "}}",
        "lists": inner('{"kind":"Refusal","fields":[' + ",".join(["[]"] * (size // 3)) + "]}"),
        "weights": inner('{"kind":"ClientUpdate","fields":{"weights":{'
                         + ",".join(f'"{i:x}":1' for i in many) + "}}}"),
        "digits": inner('{"kind":"ClientUpdate","fields":{"num_examples":' + "9" * size + "}}"),
        "name": f'{{"{"x" * size}":{empty}}}',
    }  # fmt: skip


def peak(action: Callable[[], object]) -> int:
    """The most memory in bytes that Python and NumPy held during the action."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", bombs(0))
def test_a_header_takes_memory_by_its_own_size_and_not_by_what_it_declares(bomb: str) -> None:
    """Up to 300 times its own, which is why no more than a megabyte of it is read at all."""
    data = blob(bombs(1 << 15)[bomb], b"")
    exchange = CASE.with_reply(CASE.key, data).exchange

    def read() -> None:
        with pytest.raises(UpdateRejected):
            exchange.reply(CASE.order)

    assert peak(read) < 300 * len(data) + (1 << 16)


@pytest.mark.parametrize("bomb", ["entries", "lists", "weights", "metadata"])
def test_a_header_of_many_megabytes_is_not_read(bomb: str) -> None:
    data = blob(bombs(8 * blobs.MAX_HEADER_BYTES)[bomb], b"")

    def read() -> None:
        with pytest.raises(BlobError, match=r"header has .* are accepted"):
            blobs.unpack(data)

    assert peak(read) < 1 << 16


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(BlobError, match="header has"):
        blobs.pack({}, {"reason": "x" * blobs.MAX_HEADER_BYTES})
