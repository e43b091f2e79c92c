"""A secure round at the server: agree on keys, wait for the updates, reveal their sum, commit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore import params as flat
from fedcore.aggregation import mean
from fedcore.errors import UpdateRejected
from fedcore.launch.api import Launcher
from fedcore.params import Params
from fedcore.privacy import fixed_point
from fedcore.privacy.division import Division, Parts
from fedcore.privacy.fixed_point import Values
from fedcore.privacy.secagg import Terms
from fedcore.records import Message, Refusal, Relay, Reply, RoundRecord, SealedUpdate, TrainOrder
from fedcore.server.rounds import REPLY_HEADER_BYTES, arrivals, commit
from fedcore.server.run import Run, load_state
from fedcore.server.secure import agreement
from fedcore.server.secure.hidden import HiddenSum
from fedcore.server.secure.stages import (
    Attempt,
    Decision,
    collect,
    decided,
    enough,
    given_up,
    pass_on,
)
from fedcore.server.step import Sum


@dataclass(frozen=True)
class Agreement:
    """What the sites agreed on before they train, and who goes on (U2)."""

    attempt: Attempt
    terms: Terms
    divided: Division
    senders: Decision
    seconds: float

    @property
    def orders(self) -> list[TrainOrder]:
        """Those that an update is expected for."""
        return [self.attempt.orders[site] for site in self.senders.sites]


def agree_on_keys(
    run: Run, round_num: int, orders: Sequence[TrainOrder], launcher: Launcher
) -> Agreement:
    """Let the sites exchange their keys for this round, before they train.

    Raises QuorumNotReached if too few do: the round is begun anew then, with fresh keys.
    """
    started = time.perf_counter()
    attempt = Attempt(run, round_num, {order.site: order for order in orders}, launcher)
    like, change = load_state(run, round_num).params, None
    if run.plan.secure_aggregation.encrypt_share < 1 and round_num > 0:
        change = flat.subtract(like, load_state(run, round_num - 1).params)
    terms, divided, senders = agreement.agree_on_keys(attempt, like, change)
    return Agreement(attempt, terms, divided, senders, time.perf_counter() - started)


def reveal_sum(
    run: Run, round_num: int, agreed: Agreement, dropped: Mapping[str, str]
) -> RoundRecord:
    """Add what arrived, have the sum opened, and commit the round.

    Raises QuorumNotReached if too few sites stayed: no update was revealed then, and the round is
    begun anew.
    """
    started = time.perf_counter()
    attempt, state = agreed.attempt, load_state(run, round_num)
    hidden, survivors = _hidden_sum(agreed, state.params, dropped)
    added = time.perf_counter()
    parts = _opened(agreed, hidden, survivors)
    summed = Sum(
        total=mean.Sums(*agreed.divided.combine(parts, state.params)),
        weights={site: {} for site in survivors.sites},  # which site trained what is not known
        rejected={},
        data=hidden.told.data,
        measurements=hidden.told.measurements,
    )
    attempt.traffic.up += sum(hidden.told.sizes.values())
    seconds = {
        "agree on keys": agreed.seconds,
        "aggregate": added - started,
        "open the sum": time.perf_counter() - added,
    }
    orders = attempt.orders.values()
    return commit(run, state, orders, summed, survivors.dropped, attempt.traffic, seconds)


def _hidden_sum(
    agreed: Agreement, like: Params, dropped: Mapping[str, str]
) -> tuple[HiddenSum, Decision]:
    """The sum over the survivors (U3) that are decided; this call decides if nobody did yet."""
    attempt = agreed.attempt
    made: list[HiddenSum] = []

    def decide() -> Decision:
        present = [site for site in agreed.senders.sites if site not in dropped]
        made.append(_add_up(agreed, like, present))
        told = made[0].told
        reasons = {**agreed.senders.dropped, **dropped, **told.rejected}
        wanted = max(attempt.run.plan.cohort.min_clients, agreed.terms.threshold)
        enough(attempt, "sent a usable update", told.sites, wanted, reasons)
        return Decision(told.sites, reasons, {})

    survivors = decided(attempt, "survivors", Decision, decide)
    if not made or made[0].told.sites != survivors.sites:
        made[:] = [_add_up(agreed, like, survivors.sites)]
    return made[0], survivors


def _add_up(agreed: Agreement, like: Params, sites: Sequence[str]) -> HiddenSum:
    hidden = HiddenSum(agreed.divided, like)
    orders = [agreed.attempt.orders[site] for site in sites]
    limit = _largest(agreed.divided, like)
    for site, arrival in arrivals(agreed.attempt.run, orders, limit, hidden.told.sizes):
        try:
            hidden.add(site, _sealed(arrival))
        except UpdateRejected as error:
            hidden.told.rejected[site] = str(error)
    return hidden


def _opened(agreed: Agreement, hidden: HiddenSum, survivors: Decision) -> Parts:
    """The parts of the sum, in the open."""
    attempt, terms, senders = agreed.attempt, agreed.terms, agreed.senders
    consistent = agreement.agree_on_survivors(attempt, terms, senders, survivors)
    words, values = hidden.masked, None
    if words is not None:
        words = agreement.unmasked(attempt, terms, senders, survivors, consistent, words)
    if agreed.divided.parameters is not None:
        values = _decrypted(agreed, hidden, consistent)
    return Parts(masked=words, encrypted=values, plain=hidden.plain)


def _decrypted(agreed: Agreement, hidden: HiddenSum, consistent: Decision) -> Values:
    """The encrypted part of the sum, opened by one of the sites: if one cannot, by the next."""
    attempt, run = agreed.attempt, agreed.attempt.run
    reasons: dict[str, str] = {}
    arrays, limit = hidden.encrypted(), 8 * agreed.divided.encrypted + REPLY_HEADER_BYTES
    for site in consistent.sites:
        order = attempt.orders[site]
        relay = Relay(run.run_id, site, order.seq, run.plan.digest, "decrypt", {})
        attempt.traffic.down += run.exchange.put_attachment(relay, arrays)
        pass_on(attempt, "decrypt", {site: {}})
        said, dropped = collect(
            attempt, "sum", [site], lambda m: _values(m, agreed.divided), max_bytes=limit
        )
        if site in said:
            return said[site]
        reasons |= dropped
    told = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items()))
    raise given_up(attempt, f"no site opened the sum ({told})")


def _values(said: Message, divided: Division) -> Values:
    values = said.arrays.get("values")
    if values is None or values.dtype != np.float64 or values.shape != (divided.encrypted,):
        raise UpdateRejected(f"did not send the {divided.encrypted} values of the sum")
    if not np.isfinite(values).all():
        raise UpdateRejected("opened the sum to a NaN or an infinity")
    return values


def _largest(divided: Division, like: Params) -> int:
    """Bytes that an update may have at most."""
    size = divided.rest(like) * (4 if divided.grid is None else divided.grid.dtype.itemsize)
    if divided.parameters is not None:
        chunks = divided.parameters.chunks(divided.encrypted)
        size += chunks * (divided.parameters.chunk_bytes + 1024)
    return max(size, fixed_point.length(like)) + REPLY_HEADER_BYTES


def _sealed(arrival: Reply | UpdateRejected) -> SealedUpdate:
    match arrival:
        case SealedUpdate():
            return arrival
        case Refusal():
            raise UpdateRejected(f"refused: {arrival.reason}")
        case UpdateRejected():
            raise arrival
        case _:
            raise UpdateRejected(f"sent {type(arrival).__name__} where a sealed one was asked for")
