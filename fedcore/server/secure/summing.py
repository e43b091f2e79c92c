"""What rounds and evaluations share: agree on keys, add what comes, have the sum opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.errors import UpdateRejected
from fedcore.launch.api import WorkOrder
from fedcore.privacy.division import Division, Parts
from fedcore.privacy.fixed_point import Values
from fedcore.privacy.secagg import Terms
from fedcore.records import Message, Refusal, Reply, Sealed, SealedEvaluation, SealedUpdate
from fedcore.server.rounds import REPLY_HEADER_BYTES, arrivals
from fedcore.server.secure import agreement
from fedcore.server.secure.hidden import HiddenSum, Told
from fedcore.server.secure.stages import (
    Attempt,
    Decision,
    collect,
    decided,
    enough,
    given_up,
    pass_on,
    relay_of,
)


@dataclass(frozen=True)
class Vector:
    """What is summed: ``length`` values of each site, ``divide``d in this way among so many."""

    length: int
    divide: Callable[[int], Division]


@dataclass(frozen=True)
class Agreement:
    """What the sites agreed on before they begin, and who goes on (U2)."""

    attempt: Attempt
    terms: Terms
    divided: Division
    senders: Decision
    length: int
    seconds: float

    @property
    def orders(self) -> list[WorkOrder]:
        """Those that a sealed reply is expected for."""
        return [self.attempt.orders[site] for site in self.senders.sites]


@dataclass(frozen=True)
class Opened:
    """The sum over the ``survivors``, in the open. ``seconds``: the server's, by phase."""

    parts: Parts
    survivors: Decision
    told: Told
    seconds: Mapping[str, float]


def agree(attempt: Attempt, vector: Vector) -> Agreement:
    """Let the sites exchange their keys. Raises QuorumNotReached if too few do."""
    started = time.perf_counter()
    terms, divided, senders = agreement.agree_on_keys(attempt, vector.divide)
    seconds = time.perf_counter() - started
    return Agreement(attempt, terms, divided, senders, vector.length, seconds)


def open_sum(agreed: Agreement, dropped: Mapping[str, str]) -> Opened:
    """Add what arrived, and have the sum opened; ``dropped``: site → why nothing came of it.

    Raises QuorumNotReached if too few sites stayed: nothing of any site was revealed then.
    """
    started = time.perf_counter()
    hidden, survivors = _hidden_sum(agreed, dropped)
    added = time.perf_counter()
    parts = _parts(agreed, hidden, survivors)
    agreed.attempt.traffic.up += sum(hidden.told.sizes.values())
    seconds = {
        "agree on keys": agreed.seconds,
        "aggregate": added - started,
        "open the sum": time.perf_counter() - added,
    }
    return Opened(parts, survivors, hidden.told, seconds)


def _hidden_sum(agreed: Agreement, dropped: Mapping[str, str]) -> tuple[HiddenSum, Decision]:
    """The sum over the survivors (U3) that are decided; this call decides if nobody did yet."""
    attempt = agreed.attempt
    made: list[HiddenSum] = []
    what = "update" if attempt.split == "train" else "evaluation"

    def decide() -> Decision:
        present = [site for site in agreed.senders.sites if site not in dropped]
        made.append(_add_up(agreed, present))
        told = made[0].told
        reasons = {**agreed.senders.dropped, **dropped, **told.rejected}
        wanted = max(attempt.run.plan.cohort.min_clients, agreed.terms.threshold)
        enough(attempt, f"sent a usable {what}", told.sites, wanted, reasons)
        return Decision(told.sites, reasons, {})

    survivors = decided(attempt, "survivors", Decision, decide)
    if not made or made[0].told.sites != survivors.sites:
        made[:] = [_add_up(agreed, survivors.sites)]
    return made[0], survivors


def _add_up(agreed: Agreement, sites: Sequence[str]) -> HiddenSum:
    hidden = HiddenSum(agreed.divided, agreed.length)
    orders = [agreed.attempt.orders[site] for site in sites]
    wanted = SealedUpdate if agreed.attempt.split == "train" else SealedEvaluation
    limit = _largest(agreed)
    for site, arrival in arrivals(agreed.attempt.run, orders, limit, hidden.told.sizes):
        try:
            hidden.add(site, _sealed(arrival, wanted))
        except UpdateRejected as error:
            hidden.told.rejected[site] = str(error)
    return hidden


def _parts(agreed: Agreement, hidden: HiddenSum, survivors: Decision) -> Parts:
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
    attempt = agreed.attempt
    reasons: dict[str, str] = {}
    arrays, limit = hidden.encrypted(), 8 * agreed.divided.encrypted + REPLY_HEADER_BYTES
    for site in consistent.sites:
        relay = relay_of(attempt, site, "decrypt", {})
        attempt.traffic.down += attempt.run.exchange.put_attachment(relay, arrays)
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


def _largest(agreed: Agreement) -> int:
    """Bytes that a reply may have at most."""
    divided, rest = agreed.divided, agreed.length - agreed.divided.encrypted
    size = rest * (4 if divided.grid is None else divided.grid.dtype.itemsize)
    if divided.parameters is not None:
        chunks = divided.parameters.chunks(divided.encrypted)
        size += chunks * (divided.parameters.chunk_bytes + 1024)
    return max(size, agreed.length) + REPLY_HEADER_BYTES


def _sealed(arrival: Reply | UpdateRejected, wanted: type[Sealed]) -> Sealed:
    match arrival:
        case Sealed() if isinstance(arrival, wanted):
            return arrival
        case Refusal():
            raise UpdateRejected(f"refused: {arrival.reason}")
        case UpdateRejected():
            raise arrival
        case _:
            told = type(arrival).__name__
            raise UpdateRejected(f"sent {told} where {wanted.__name__} was asked for")
