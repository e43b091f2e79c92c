"""The client of one site: a loop over its orders, each of which becomes one reply.

What an update holds depends on the order and on the site's data alone, never on what the process
did before: a client that was killed, or is warm from ten rounds, sends the same one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fedcore import params as flat
from fedcore.aggregation import scaffold
from fedcore.client import residual
from fedcore.client.inbox import Inbox
from fedcore.client.learner import Learner
from fedcore.client.outbox import Outbox
from fedcore.client.personal import Personal
from fedcore.client.private import Private, forget, hold_to, training_key
from fedcore.client.residual import Residual
from fedcore.client.secure import Partner, SecureRound
from fedcore.client.summand import StatisticsSummand, Summand, UpdateSummand, without_modalities
from fedcore.client.talk import Talk
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn
from fedcore.config.federation import Drill
from fedcore.config.plan import Plan, Timeouts
from fedcore.config.policy import Policy, objection
from fedcore.errors import DataError, OrderRefused, PermanentError
from fedcore.params import Params
from fedcore.records import (
    ClientUpdate,
    EvalOrder,
    Evaluation,
    FinishOrder,
    Message,
    Refusal,
    Reply,
    Sealed,
    SealedEvaluation,
    SealedUpdate,
    TrainOrder,
)
from fedcore.store import envelope
from fedcore.store.api import Store
from fedcore.store.budget import BudgetLedger, Charged
from fedcore.store.egress import Egress
from fedcore.store.exchange import Exchange
from fedcore.store.ledger import Ledger

log = logging.getLogger("fedcore.client")

_LOOK = 1.0
"""Seconds between two looks whether the server has gone on to the next order."""


class Client:
    """``policy`` is the hospital's, ``data`` its own files, ``exchange`` the shared bucket.

    ``partner``: what the site needs for secure rounds. ``drill``: see ``federation.Site``.
    """

    def __init__(
        self,
        policy: Policy,
        exchange: Exchange,
        data: Store,
        *,
        partner: Partner | None = None,
        drill: Drill | None = None,
    ) -> None:
        self._policy = policy
        self._partner = partner
        self._drill = drill
        self._site = policy.site
        self._exchange = exchange
        self._data = data
        self._ledger = Ledger(data)
        identity = None if partner is None else partner.identity
        self._egress = Egress(data, identity, policy.approver)
        self._budget = BudgetLedger(data, self._egress, policy.budget, identity, policy.approver)
        self._inbox = Inbox(exchange)
        self._outbox = Outbox(exchange, self._egress, identity)
        self._asked: tuple[Plan | None, int | None] = (None, None)
        self._charged: Charged | None = None
        self._server_key = envelope.public_key(policy.server_public_key)
        self._round_num = -1
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
                self._take_part_in_drill(reply)
                self.send(reply)
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
        order_digest, talk = "", None
        self._asked, self._charged = (None, None), None
        try:
            order, order_digest = self._exchange.order(self._site, run_id, seq, self._server_key)
            if isinstance(order, FinishOrder):
                forget(self._data, run_id)
                residual.forget(self._data, run_id)
                return
            talk = Talk(self._exchange, order, order_digest, self._server_key)
            self._round_num = order.round_num if isinstance(order, TrainOrder) else -1
            yield from self._obey(order, talk)
            return
        except DataError as error:
            # The message may name a subject's file: it stays here, and the category goes.
            log.warning("order %d of run %s: %s", seq, run_id, error)
            reason = error.reason
        except PermanentError as error:
            reason = str(error)
        step = talk.step if talk is not None else None
        yield Refusal(self._site, run_id, seq, order_digest, reason, step)

    def send(self, reply: Reply) -> None:
        """Let the reply to the order at hand leave, signed, noted, and once.

        Where it would be a second, other one in its place, the site refuses instead.
        """
        try:
            self._outbox.send(reply, *self._asked, self._charged)
        except OrderRefused as error:
            step = reply.step if isinstance(reply, Message) else None
            said = (reply.site, reply.run_id, reply.seq, reply.order_digest)
            self._outbox.send(Refusal(*said, str(error), step), *self._asked)

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

    def _obey(self, order: TrainOrder | EvalOrder, talk: Talk) -> Iterator[Reply | None]:
        plan = self._plan_of(order)
        secure = plan.secure_aggregation
        self._asked = (plan, order.round_num)
        if secure.statistics if isinstance(order, EvalOrder) else secure.mode != "none":
            talk.step = "keys"  # what the server waits for first
        reason = objection(self._policy, plan)
        if reason is not None:
            raise OrderRefused(reason)
        spent = {"bytes_down": 0.0, "seconds.download": 0.0}
        params = self._inbox.params(order.run_id, order.round_num, order.params_digest, spent, plan)
        control = None
        if plan.training.scaffold:
            params, control = scaffold.split(params)
        model = None
        if isinstance(order, EvalOrder) and order.onnx_digest is not None:
            model = self._inbox.onnx(order.run_id, order.onnx_digest, spent, plan)
        self._egress.recall(self._ledger.accept(order, talk.order_digest, self._egress.end()))
        if isinstance(order, TrainOrder):
            self._charged = self._budget.charge(order, talk.order_digest, plan)
        summand: Summand
        if isinstance(order, EvalOrder):
            evaluate = partial(self._evaluate, order, talk.order_digest, params, model, plan, spent)
            if not secure.statistics:
                yield evaluate()
                return
            self._learner_of(plan, spent).check(order.split)
            summand = StatisticsSummand(plan, evaluate)
        else:
            train = partial(self._train, order, talk.order_digest, params, control, plan, spent)
            if secure.mode == "none":
                yield train()
                return
            change = self._change(order, params, plan, spent)
            codec = chain(**plan.coding("up", order.round_num))
            turn = Turn(plan.seed, order.round_num, order.site)
            secret = partial(training_key, self._data, plan, order)
            summand = UpdateSummand(
                plan, order, codec.encode(params, turn), change and codec.encode(change, turn),
                train, secret, lambda: self._learner_of(plan, spent).held(params),
            )  # fmt: skip
        if self._partner is None:
            raise OrderRefused(
                "the plan wants secure aggregation, and this client has no identity; set "
                "FEDCORE_IDENTITY to a key of `fedcore keys create`, and peers in the policy"
            )
        private = Private(self._data, order, talk.order_digest)
        yield from SecureRound(talk, private, self._partner, plan, summand).replies()

    def _train(
        self, order: TrainOrder, digest: str, params: Params, control: Params | None, plan: Plan,
        spent: dict[str, float],
    ) -> ClientUpdate:  # fmt: skip
        key = None if plan.privacy.subject is None else training_key(self._data, plan, order)
        train = partial(
            self._learner_of(plan, spent).train, order, digest, params,
            noise_key=key, personal=self._personal(order, plan), control=control,
        )  # fmt: skip
        if plan.compression.feedback:
            carried = Residual(self._data, self._exchange, order)
            update, rest = train(rest=carried.enter())
            carried.leave(rest)
        else:
            update, _ = train()
        if plan.privacy.subject is not None or plan.noise_in_shares:
            hold_to(self._data, plan, order, update.update)
        # What a hospital spent on other studies is its own business, and no server's.
        told = {} if self._charged is None else {"epsilon_spent": self._charged.stated}
        return replace(update, measurements={**update.measurements, **spent, **told})

    def _evaluate(
        self, order: EvalOrder, digest: str, params: Params, model: bytes | None, plan: Plan,
        spent: dict[str, float],
    ) -> Evaluation:  # fmt: skip
        personal = self._personal(order, plan)
        learner = self._learner_of(plan, spent)
        evaluation = learner.evaluate(order, digest, params, model, personal)
        data = evaluation.data
        if plan.secure_aggregation.mode != "none":
            data = without_modalities(data)
        return replace(evaluation, data=data, measurements={**evaluation.measurements, **spent})

    def _personal(self, order: TrainOrder | EvalOrder, plan: Plan) -> Personal | None:
        keeps = bool(plan.training.local) or plan.training.scaffold
        return Personal(self._data, order) if keeps else None

    def _change(
        self, order: TrainOrder, params: Params, plan: Plan, spent: dict[str, float]
    ) -> Params | None:
        """What the round before changed in the params, where what is encrypted rests on it."""
        if plan.secure_aggregation.encrypt_share == 1 or order.previous_digest is None:
            return None
        before = self._inbox.params(
            order.run_id, order.round_num - 1, order.previous_digest, spent, plan
        )
        return flat.subtract(params, before)

    def _learner_of(self, plan: Plan, spent: dict[str, float]) -> Learner:
        """Data and model of the plan; notes the seconds it took to load them."""
        started = time.perf_counter()
        if self._learner is None or self._learner[0] != plan.digest:
            self._learner = (
                plan.digest,
                Learner(plan, self._data, min_cell=self._policy.min_cell),
            )
        spent["seconds.load"] = time.perf_counter() - started
        return self._learner[1]

    def _take_part_in_drill(self, reply: Reply) -> None:
        updates = isinstance(reply, ClientUpdate | Sealed)
        step = "update" if updates else getattr(reply, "step", None)
        if self._drill is not None and (self._drill, 1) == (step, self._round_num):
            raise PermanentError(f"a drill: this client ends before it says {step}")

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
        case SealedUpdate():
            return "trained, and sent the update sealed"
        case SealedEvaluation():
            return "evaluated, and sent the counts sealed"
        case Message():
            return f"said {reply.step}"
