"""A secure round at the server: agree on keys, wait for the updates, reveal their sum, commit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedcore.errors import UpdateRejected
from fedcore.launch.api import Launcher
from fedcore.params import Params
from fedcore.privacy import fixed_point
from fedcore.privacy.fixed_point import Grid, Words
from fedcore.privacy.secagg import Terms
from fedcore.records import DataSummary, Refusal, Reply, RoundRecord, SealedUpdate, TrainOrder
from fedcore.server.rounds import REPLY_HEADER_BYTES, arrivals, commit
from fedcore.server.run import Run, load_state
from fedcore.server.secure import masks
from fedcore.server.secure.stages import Attempt, Decision, decided, enough
from fedcore.server.step import Sum


@dataclass(frozen=True)
class Agreement:
    """What the sites agreed on before they train, and who goes on."""

    attempt: Attempt
    terms: Terms
    senders: Decision

    @property
    def orders(self) -> list[TrainOrder]:
        """Those that an update is expected for."""
        return [self.attempt.orders[site] for site in self.senders.sites]

    @property
    def grid(self) -> Grid:
        """The fixed point that all sites of the roster use."""
        plan = self.attempt.run.plan
        bound = plan.privacy.clip_norm or 0.0  # a secure plan without it is refused
        return fixed_point.grid(self.attempt.secure.bits, bound, len(self.terms.roster))


def agree_on_keys(
    run: Run, round_num: int, orders: Sequence[TrainOrder], launcher: Launcher
) -> Agreement:
    """Let the sites exchange their keys for this round, before they train.

    Raises QuorumNotReached if too few do: the round is begun anew then, with fresh keys.
    """
    attempt = Attempt(run, round_num, {order.site: order for order in orders}, launcher)
    return Agreement(attempt, *masks.agree_on_keys(attempt))


def reveal_sum(
    run: Run, round_num: int, agreement: Agreement, dropped: Mapping[str, str]
) -> RoundRecord:
    """Add what arrived, take off the masks, and commit the round.

    Raises QuorumNotReached if too few sites stayed: no update was revealed then, and the round is
    begun anew.
    """
    started = time.perf_counter()
    attempt, state = agreement.attempt, load_state(run, round_num)
    hidden, survivors = _hidden_sum(agreement, state.params, dropped)
    words = masks.unmasked(attempt, agreement.terms, agreement.senders, survivors, hidden.words)
    summed = Sum(
        total=masks.decoded(words, state.params, agreement.grid),
        weights={site: {} for site in survivors.sites},  # which site trained what is not known
        rejected={},
        data=hidden.data,
        measurements=hidden.measurements,
    )
    orders = attempt.orders.values()
    return commit(run, state, orders, summed, survivors.dropped, hidden.sizes, started)


@dataclass
class _Hidden:
    """The sum of what arrived, behind its masks."""

    words: Words
    data: dict[str, DataSummary] = field(default_factory=dict)
    measurements: dict[str, Mapping[str, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)


def _hidden_sum(
    agreement: Agreement, like: Params, dropped: Mapping[str, str]
) -> tuple[_Hidden, Decision]:
    """The sum over the survivors (U3) that are decided; this call decides if nobody did yet."""
    attempt = agreement.attempt
    made: list[_Hidden] = []

    def decide() -> Decision:
        present = [site for site in agreement.senders.sites if site not in dropped]
        made.append(_add_up(agreement, like, present))
        reasons = {**agreement.senders.dropped, **dropped, **made[0].rejected}
        wanted = max(attempt.run.plan.cohort.min_clients, agreement.terms.threshold)
        enough(attempt, "sent a usable update", made[0].data, wanted, reasons)
        return Decision(tuple(sorted(made[0].data)), reasons, {})

    survivors = decided(attempt, "survivors", Decision, decide)
    if not made or tuple(sorted(made[0].data)) != survivors.sites:
        made[:] = [_add_up(agreement, like, survivors.sites)]
    return made[0], survivors


def _add_up(agreement: Agreement, like: Params, sites: Sequence[str]) -> _Hidden:
    grid, length = agreement.grid, fixed_point.length(like)
    hidden = _Hidden(np.zeros(length, grid.dtype))
    orders = [agreement.attempt.orders[site] for site in sites]
    limit = length * grid.dtype.itemsize + REPLY_HEADER_BYTES
    for site, arrival in arrivals(agreement.attempt.run, orders, limit, hidden.sizes):
        try:
            update = _sealed(arrival)
            masks.add(hidden.words, update)
        except UpdateRejected as error:
            hidden.rejected[site] = str(error)
            continue
        hidden.data[site], hidden.measurements[site] = update.data, update.measurements
    return hidden


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
