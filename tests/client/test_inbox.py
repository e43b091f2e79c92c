"""The params that a client gets: fetched once, and never others than those an order names."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore.client.inbox import Inbox
from fedcore.errors import NotFound, OrderRefused
from fedcore.params import digest
from fedcore.store.blobs import digest as digest_of_bytes
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

FIRST, SECOND = ({"head.w": np.full(3, value, np.float32)} for value in (1.0, 2.0))


@pytest.fixture
def exchange() -> Exchange:
    exchange = Exchange(MemoryStore())
    for round_num, params in enumerate((FIRST, SECOND)):
        exchange.publish_params("run-1", round_num, params)
    return exchange


def nothing_spent() -> dict[str, float]:
    return {"bytes_down": 0.0, "seconds.download": 0.0}


def test_the_same_params_are_fetched_once(exchange: Exchange) -> None:
    inbox, validation, training = Inbox(exchange), nothing_spent(), nothing_spent()
    for spent in (validation, training):
        assert digest(inbox.params("run-1", 1, digest(SECOND), spent)) == digest(SECOND)
    assert validation["bytes_down"] > SECOND["head.w"].nbytes
    assert training == nothing_spent()


def test_other_params_are_fetched_and_counted(exchange: Exchange) -> None:
    inbox, spent = Inbox(exchange), nothing_spent()
    sizes = []
    for round_num, params in ((0, FIRST), (1, SECOND), (0, FIRST)):
        assert digest(inbox.params("run-1", round_num, digest(params), spent)) == digest(params)
        sizes.append(spent["bytes_down"])
    assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]


def test_what_is_held_is_not_taken_for_what_an_order_names(exchange: Exchange) -> None:
    inbox = Inbox(exchange)
    inbox.params("run-1", 0, digest(FIRST), nothing_spent())
    with pytest.raises(OrderRefused, match="not those that the order names"):
        inbox.params("run-1", 0, digest(SECOND), nothing_spent())
    with pytest.raises(NotFound):
        inbox.params("run-1", 2, "ab", nothing_spent())
    assert digest(inbox.params("run-1", 0, digest(FIRST), nothing_spent())) == digest(FIRST)


def test_what_is_held_cannot_be_changed_by_its_user(exchange: Exchange) -> None:
    held = Inbox(exchange).params("run-1", 0, digest(FIRST), nothing_spent())
    with pytest.raises(ValueError, match="read-only"):
        held["head.w"][0] = 9.0


def test_the_export_is_counted_and_checked(exchange: Exchange) -> None:
    exchange.publish_onnx("run-1", b"model")
    spent = nothing_spent()
    assert Inbox(exchange).onnx("run-1", digest_of_bytes(b"model"), spent) == b"model"
    assert spent["bytes_down"] == 5
    with pytest.raises(OrderRefused, match="ONNX"):
        Inbox(exchange).onnx("run-1", digest_of_bytes(b"other"), spent)
