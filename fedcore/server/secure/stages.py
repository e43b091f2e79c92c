"""The conversation of a secure round, as the server leads it: collect, decide, pass on.

What the server decides (who takes part, whose update counts) is written down once before anybody
is told, so that a server that was killed tells nobody anything else. What the sites said stays in
the exchange. So every function here can be called again, and does only what is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedcore.config.protection import SecureAggregation
from fedcore.errors import NotFound, QuorumNotReached, UpdateRejected
from fedcore.launch.api import Launcher, WorkOrder
from fedcore.privacy.secagg import context_of, default_threshold
from fedcore.records import Message, Refusal, Relay, Split, Step
from fedcore.server.events import tell
from fedcore.server.replies import await_replies
from fedcore.server.rounds import Traffic
from fedcore.server.run import Run, fail_attempt
from fedcore.store.exchange import order_digest

T = TypeVar("T")

_MAX_BYTES = 1 << 24


@dataclass(frozen=True)
class Attempt:
    """One attempt at one secure round, or evaluation: the orders that began it, by site."""

    run: Run
    round_num: int
    orders: Mapping[str, WorkOrder]
    launcher: Launcher
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def split(self) -> Split:
        """``train`` for a round."""
        return next(iter(self.orders.values())).split

    @property
    def name(self) -> str:
        """What was tried, for people."""
        match self.split:
            case "train":
                return f"round {self.round_num}"
            case "validation":
                return f"round {self.round_num - 1}, validation"
            case _:
                return "the evaluation of the final model"

    @property
    def place(self) -> str:
        """Where what is decided lies among the run's records."""
        where, number = f"{self.round_num:05d}", f"attempt-{self.number}"
        if self.split == "train":
            return f"rounds/{where}/{number}"
        return f"evaluations/{where}-{self.split}/{number}"

    @property
    def secure(self) -> SecureAggregation:
        return self.run.plan.secure_aggregation

    @property
    def context(self) -> bytes:
        """What everything signed or derived in this attempt is bound to."""
        return context_of(*next(iter(self.orders.values())).names_attempt())

    def threshold(self, sites: Collection[str]) -> int:
        """How many of these must stay to the end."""
        return self.secure.threshold or default_threshold(len(sites))

    @property
    def number(self) -> int:
        """How many attempts failed before."""
        return self.run.attempts(self.round_num, self.split)


@dataclass(frozen=True)
class Decision:
    """Who goes on to the next stage, who does not and why, and what the stage left."""

    sites: tuple[str, ...]
    dropped: Mapping[str, str]
    said: Mapping[str, Any]


def decided(attempt: Attempt, name: str, kind: type[T], make: Callable[[], T]) -> T:
    """What was decided as ``name`` in this attempt; ``make`` decides if nobody did yet."""
    exchange, run_id = attempt.run.exchange, attempt.run.run_id
    place = f"{attempt.place}/{name}"
    found = exchange.record(run_id, place, kind)
    if found is not None:
        return found
    value = make()
    if exchange.create_record(run_id, place, value):
        return value
    return exchange.record(run_id, place, kind) or value


def collect(
    attempt: Attempt,
    step: Step,
    sites: Iterable[str],
    read: Callable[[Message], T],
    max_bytes: int = _MAX_BYTES,
) -> tuple[dict[str, T], dict[str, str]]:
    """What each of the sites said as ``step``, by ``read``; and site → why nothing usable came.

    What has more than ``max_bytes`` is not read.
    """
    orders = [attempt.orders[site] for site in sorted(sites)]
    tell("stage", round_num=attempt.round_num, stage=step, sites=len(orders))
    dropped = await_replies(attempt.run, orders, attempt.launcher, step)
    said: dict[str, T] = {}
    for order in orders:
        if order.site in dropped:
            continue
        try:
            said[order.site] = read(_message(attempt, order, step, max_bytes))
        except (UpdateRejected, NotFound) as error:
            dropped[order.site] = str(error)
    return said, dropped


def pass_on(attempt: Attempt, step: Step, bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """Tell each of the sites its body."""
    run = attempt.run
    for site, body in sorted(bodies.items()):
        relay = relay_of(attempt, site, step, body)
        attempt.traffic.down += run.exchange.put_relay(relay, run.signing_key)


def relay_of(attempt: Attempt, site: str, step: Step, body: Mapping[str, Any]) -> Relay:
    """The body as a part of the site's order."""
    order = attempt.orders[site]
    return Relay(order.run_id, site, order.seq, order_digest(order), step, body)


def enough(attempt: Attempt, what: str, sites: Iterable[str], wanted: int,
           dropped: Mapping[str, str]) -> None:  # fmt: skip
    """Give the attempt up if these are fewer sites than ``wanted``."""
    if len(present := tuple(sites)) < wanted:
        told = "; ".join(f"{site}: {reason}" for site, reason in sorted(dropped.items()))
        raise given_up(attempt, f"{len(present)} sites {what}, and {wanted} are needed ({told})")


def given_up(attempt: Attempt, reason: str) -> QuorumNotReached:
    """What to raise to end this attempt: nothing was revealed, and the round can be begun anew."""
    fail_attempt(attempt.run, attempt.round_num, reason, attempt.split)
    what = "update" if attempt.split == "train" else "count"
    return QuorumNotReached(
        f"{attempt.name}: {reason}; no {what} was revealed, and --resume begins this anew with "
        "fresh keys"
    )


def _message(attempt: Attempt, order: WorkOrder, step: Step, max_bytes: int) -> Message:
    reply, size = attempt.run.exchange.reply(order, step=step, max_bytes=max_bytes)
    attempt.traffic.up += size
    if isinstance(reply, Refusal):
        raise UpdateRejected(f"refused: {reply.reason}")
    if not isinstance(reply, Message) or reply.step != step:
        raise UpdateRejected(f"sent something else where {step!r} was asked for")
    return reply
