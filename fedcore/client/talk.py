"""A site's side of the conversation that an order begins: what it says, and what it waits for."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedcore.records import EvalOrder, Message, Relay, Reply, Step, TrainOrder
from fedcore.store.exchange import Exchange

Waiting = Generator[Reply | None, None, Mapping[str, Any]]
"""Yields None as long as there is nothing, and returns what was passed on."""


@dataclass
class Talk:
    """``step`` is what the site says next, or says no to; None is its reply to the order."""

    exchange: Exchange
    order: TrainOrder | EvalOrder
    order_digest: str
    server_key: Ed25519PublicKey
    step: Step | None = field(default=None, init=False)

    def say(
        self, step: Step, body: Mapping[str, Any], arrays: Mapping[str, Any] | None = None
    ) -> Message:
        """The message of this step."""
        order = self.order
        return Message(
            order.site, order.run_id, order.seq, self.order_digest, step, body, arrays or {}
        )

    def sent_update(self) -> bool:
        """Whether the update is there, from a client that was killed since."""
        order = self.order
        return self.exchange.has_reply(order.site, order.run_id, order.seq)

    def attached(self, step: Step) -> Mapping[str, Any]:
        """The arrays that came with what was passed on as ``step``."""
        order = self.order
        return self.exchange.attachment(order.site, order.run_id, order.seq, step)

    def hear_or_leave(
        self, step: Step, answer: Step
    ) -> Generator[Reply | None, None, Mapping[str, Any] | None]:
        """As ``hear``; None if the server goes on to the next order without asking this site."""
        self.step = answer
        order = self.order
        while (relay := self._passed_on(step)) is None:
            if self.exchange.has_order(order.site, order.run_id, order.seq + 1):
                return None
            yield None
        return relay.body

    def hear(self, step: Step, answer: Step | None) -> Waiting:
        """What the server passes on as ``step``, to which the site says ``answer``.

        Raises OrderRefused if it is not the server's.
        """
        self.step = answer
        while (relay := self._passed_on(step)) is None:
            yield None
        return relay.body

    def _passed_on(self, step: Step) -> Relay | None:
        return self.exchange.relay(self.order, self.order_digest, step, self.server_key)
