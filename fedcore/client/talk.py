"""A site's side of the conversation that an order begins: what it says, and what it waits for."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedcore.records import Message, Reply, Step, TrainOrder
from fedcore.store.exchange import Exchange

Waiting = Generator[Reply | None, None, Mapping[str, Any]]
"""Yields None as long as there is nothing, and returns what was passed on."""


@dataclass
class Talk:
    """``step`` is the one that the site says next, or that it says no to; None is its update."""

    exchange: Exchange
    order: TrainOrder
    order_digest: str
    server_key: Ed25519PublicKey
    step: Step | None = field(default=None, init=False)

    def say(self, body: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> Message:
        """The message of this step."""
        order = self.order
        assert self.step is not None
        return Message(
            order.site, order.run_id, order.seq, self.order_digest, self.step, body, arrays or {}
        )

    def said(self) -> bool:
        """Whether this step was said before, by a client that was killed since."""
        order = self.order
        return self.exchange.has_reply(order.site, order.run_id, order.seq, self.step)

    def hear(self, step: Step) -> Waiting:
        """What the server passes on as ``step``. Raises OrderRefused if it is not the server's."""
        order = self.order
        while True:
            relay = self.exchange.relay(order.site, order.run_id, order.seq, step, self.server_key)
            if relay is not None:
                return relay.body
            yield None
