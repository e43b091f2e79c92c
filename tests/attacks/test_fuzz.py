"""Malformed messages, by the hundred: refused with a reason, and the round goes on with the others.

``tests/store/test_blobs.py`` fuzzes the file format against the safetensors library, and
``test_updates.py`` names the lies of a well-formed update. Here is what lies between: any bytes
where a reply, an evaluation or an order was expected, and how much memory reading them takes.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcore.errors import BlobError, OrderRefused, QuorumNotReached, UpdateRejected
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server import evaluation, orders, rounds
from fedcore.server.run import Run, load_state
from fedcore.store import blobs, envelope
from fedcore.store.exchange import Exchange
from fedcore.store.identity import Roll, open_reply, sign_reply
from fedcore.store.memory import MemoryStore

fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

odd_numbers = st.sampled_from(
    [-1, 0, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308, 5e-324]
)
odd_json = st.recursive(
    st.none() | st.booleans() | odd_numbers | st.floats() | st.text(max_size=4)
    | st.sampled_from(["", "\ud800", "\0", "../../params", "north", "ClientUpdate", "x" * 999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
"""What Python's json writes, NaN, lone surrogates and numbers of 400 digits included."""


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything inside a JSON value, itself included."""
    yield here
    inside = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()  # fmt: skip
    for key, inner in inside:
        yield from places(inner, (*here, key))


def altered(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """``value`` with ``new`` in that place."""
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = altered(copy[path[0]], path[1:], new)
    return copy


def blob(header: str, body: bytes) -> bytes:
    """A safetensors file with this text as its header, whatever it says."""
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as JSON, and the rest."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def content(data: bytes) -> bytes:
    """A reply without the frame of a signature, which a site can make for anything it sends."""
    return bytes(open_reply(data, "", Roll()))


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


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes like these: flipped, cut, spliced, or with something odd in the header."""
    header, body = parts(data)
    fields = json.loads(header["__metadata__"]["fedcore"])

    def with_fields(path: tuple[Any, ...], new: Any) -> bytes:
        inner = json.dumps(altered(fields, path, new))
        return blob(json.dumps({**header, "__metadata__": {"fedcore": inner}}), body)

    def flipped(changes: list[tuple[int, int]]) -> bytes:
        copy = bytearray(data)
        for position, bit in changes:
            copy[position] ^= 1 << bit
        return bytes(copy)

    position = st.integers(0, len(data) - 1)
    return st.one_of(
        st.binary(max_size=64),
        st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=4).map(flipped),
        position.map(lambda end: data[:end]),
        st.tuples(position, position).map(lambda cut: data[: cut[0]] + data[cut[1] :]),
        st.tuples(st.sampled_from(list(places(header))), odd_json).map(
            lambda change: blob(json.dumps(altered(header, *change)), body)
        ),
        st.tuples(st.sampled_from(list(places(fields))), odd_json).map(
            lambda change: with_fields(*change)
        ),
    )


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
    data = bytearray(sign_reply(CASE.good, toy.IDENTITIES["north"]))
    data[bit // 8] ^= 1 << bit % 8
    assert goes_on(bytes(data)).dropped["north"]


@fuzzed
@given(mutated(CASE.good))
def test_a_round_goes_on_whatever_one_site_sends(data: bytes) -> None:
    goes_on(data)


@fuzzed
@given(mutated(CASE.good_check))
def test_an_evaluation_goes_on_whatever_one_site_sends(data: bytes) -> None:
    is_evaluated(data)


ODD = [
    None, True, -1, 2**53, 2**64, 10**400, -(10**400), 0.5, 1e308, float("nan"), float("inf"),
    "\ud800", "../../params", [], {}, {"": None}, {"a": 10**400},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_every_field_of_a_reply_odd_in_turn(odd: Any) -> None:
    """Each alone, so that none hides behind a fault found before it."""
    for good, act in ((CASE.good, goes_on), (CASE.good_check, is_evaluated)):
        header, body = parts(good)
        fields = json.loads(header["__metadata__"]["fedcore"])
        for path in places(fields):
            inner = json.dumps(altered(fields, path, odd))
            act(blob(json.dumps({**header, "__metadata__": {"fedcore": inner}}), body))
        for path in places(header):
            act(blob(json.dumps(altered(header, path, odd)), body))


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


# Orders: at the client, of whatever is there, OrderRefused and nothing else.

ORDER_KEY = "orders/north/run-1/000000.json"
SEALED = CASE.store.get(ORDER_KEY)
PAYLOAD = json.loads(json.loads(SEALED)["payload"])


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
    "run_id": "run-1", "site": "north", "seq": 0, "plan_digest": "x", "step": "roster",
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
        came = Exchange(store).relay("north", "run-1", 0, "roster", toy.KEY.public_key())
    except OrderRefused:
        return
    assert signed
    assert came is not None
    assert (came.site, came.run_id, came.seq, came.step) == ("north", "run-1", 0, "roster")


def test_an_oversized_order_is_not_read() -> None:
    with pytest.raises(BlobError, match="are accepted"):
        received(bytes(1 << 21))


# Rounds behind masks: one site's message at one step, malformed.


class TamperingStore(MemoryStore):
    """Changes what west puts as one step of its first round."""

    def __init__(self, step: str, change: Callable[[bytes], bytes]) -> None:
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
    assert {"east", "north"} <= set(record.weights)
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
    assert ("west" in record.dropped) == (step in ("keys", "shares", "update"))
    if "west" in record.dropped:
        assert "safetensors" in record.dropped["west"]


@pytest.mark.parametrize("step", STEPS)
@settings(fuzzed, max_examples=25)
@given(st.data())
def test_a_secure_round_goes_on_or_can_be_begun_anew(step: str, data: st.DataObject) -> None:
    odd = data.draw(mutated(HONEST[step]))
    secure_round(TamperingStore(step, lambda _: odd))


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
