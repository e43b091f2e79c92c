"""The client of one site: a loop over its orders, each of which becomes one reply.

What an update holds depends on the order and on the site's data alone, never on what the process
did before: a client that was killed, or is warm from ten rounds, sends the same one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from fedcore.client.learner import Learner
from fedcore.config.plan import Plan, Timeouts
from fedcore.config.policy import Policy, objection
from fedcore.errors import DataError, OrderRefused, PermanentError
from fedcore.records import (
    ClientUpdate,
    EvalOrder,
    Evaluation,
    FinishOrder,
    Refusal,
    Reply,
    TrainOrder,
)
from fedcore.store import envelope
from fedcore.store.api import Store
from fedcore.store.exchange import Exchange
from fedcore.store.ledger import Ledger

log = logging.getLogger("fedcore.client")

_LOOK = 1.0
"""Seconds between two looks whether the server has gone on to the next order."""


class Client:
    """``policy`` is the hospital's, ``data`` its own files, ``exchange`` the shared bucket."""

    def __init__(self, policy: Policy, exchange: Exchange, data: Store) -> None:
        self._policy = policy
        self._site = policy.site
        self._exchange = exchange
        self._data = data
        self._ledger = Ledger(data)
        self._server_key = envelope.public_key(policy.server_public_key)
        self._plan: Plan | None = None
        self._learner: tuple[str, Learner] | None = None

    def run(self, run_id: str, first_seq: int = 0) -> None:
        """Answer the orders of ``run_id`` from number ``first_seq`` on, until the run ends.

        Also ends when no order came for the plan's ``timeouts.idle`` seconds, and after one order
        if that is 0. What the site refuses is a reply, not an error. Raises StoreUnavailable.
        """
        timeouts = self._exchange.plan(run_id).timeouts
        following = self._await_order(run_id, first_seq, timeouts)
        while (seq := following) is not None:
            if not self._answer(run_id, seq, timeouts):
                log.info("run %s is over", run_id)
                return
            if timeouts.idle == 0:
                return
            following = self._await_order(run_id, seq + 1, timeouts)

    def _answer(self, run_id: str, seq: int, timeouts: Timeouts) -> bool:
        """Reply to the order at this place. False if it says that the run is over."""
        goes_on = False
        look, give_up = _LOOK, time.monotonic() + max(timeouts.idle, timeouts.round)
        for reply in self.replies(run_id, seq):
            goes_on = True
            if reply is not None:
                self._exchange.put_reply(reply)
                log.info("order %d of run %s: %s", seq, run_id, _describe(reply))
                give_up = time.monotonic() + max(timeouts.idle, timeouts.round)
                continue
            time.sleep(timeouts.poll)
            if time.monotonic() > give_up:
                log.warning("order %d of run %s: the server does not go on with it", seq, run_id)
                break
            look -= timeouts.poll
            if look < 0 and self._exchange.has_order(self._site, run_id, seq + 1):
                log.info("order %d of run %s: the server went on without this site", seq, run_id)
                break
            look = _LOOK if look < 0 else look
        return goes_on

    def replies(self, run_id: str, seq: int) -> Iterator[Reply | None]:
        """What there is to say to the order at this place, one after the other.

        None where the server, or other sites, must say something first. Nothing at all if the
        order says that the run is over.
        """
        order_digest, step = "", None
        try:
            order, order_digest = self._exchange.order(self._site, run_id, seq, self._server_key)
            if isinstance(order, FinishOrder):
                return
            yield self._obey(order, order_digest)
            return
        except DataError as error:
            # The message may name a subject's file: it stays here, and the category goes.
            log.warning("order %d of run %s: %s", seq, run_id, error)
            reason = error.reason
        except PermanentError as error:
            reason = str(error)
        yield Refusal(self._site, run_id, seq, order_digest, reason, step)

    def _await_order(self, run_id: str, seq: int, timeouts: Timeouts) -> int | None:
        """The number of the newest order from ``seq`` on; None if none came in time."""
        there = self._exchange.has_order(self._site, run_id, seq)
        while there and self._exchange.has_order(self._site, run_id, seq + 1):
            seq += 1  # the server has gone on: what it asked before no longer counts
        give_up = time.monotonic() + timeouts.idle
        while not there:
            if time.monotonic() >= give_up:
                log.info("no order for %g s: the client ends", timeouts.idle)
                return None
            time.sleep(timeouts.poll)
            there = self._exchange.has_order(self._site, run_id, seq)
        return seq

    def _obey(self, order: TrainOrder | EvalOrder, order_digest: str) -> Reply:
        plan = self._plan_of(order)
        reason = objection(self._policy, plan)
        if reason is not None:
            raise OrderRefused(reason)
        started = time.perf_counter()
        params, size = self._exchange.params(order.run_id, order.round_num, order.params_digest)
        model = None
        if isinstance(order, EvalOrder) and order.onnx_digest is not None:
            model = self._exchange.onnx(order.run_id, order.onnx_digest)
            size += len(model)
        downloaded = time.perf_counter()
        self._ledger.accept(order, order_digest)
        if self._learner is None or self._learner[0] != order.plan_digest:
            learner = Learner(plan, self._data, min_cell=self._policy.min_cell)
            self._learner = (order.plan_digest, learner)
        learner = self._learner[1]
        loaded = time.perf_counter()
        reply: ClientUpdate | Evaluation
        if isinstance(order, TrainOrder):
            reply = learner.train(order, order_digest, params)
        else:
            reply = learner.evaluate(order, order_digest, params, model)
        spent = {
            "bytes_down": float(size),
            "seconds.download": downloaded - started,
            "seconds.load": loaded - downloaded,
        }
        return replace(reply, measurements={**reply.measurements, **spent})

    def _plan_of(self, order: TrainOrder | EvalOrder) -> Plan:
        if self._plan is None or self._plan.digest != order.plan_digest:
            self._plan = self._exchange.plan(order.run_id, order.plan_digest)
        return self._plan


def _describe(reply: Reply) -> str:
    match reply:
        case Refusal():
            return f"refused: {reply.reason}"
        case ClientUpdate():
            return f"trained on {reply.num_examples} subjects"
        case Evaluation():
            return f"evaluated {reply.num_examples} subjects"
        case _:
            return "trained"
