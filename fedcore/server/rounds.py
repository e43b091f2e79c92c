"""The end of a round: sum what arrived, add the noise, commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedcore import params as flat
from fedcore.errors import NotFound, QuorumNotReached, UpdateRejected
from fedcore.launch.api import WorkOrder
from fedcore.records import RoundRecord, Survivors, TrainOrder
from fedcore.server.run import Run, load_state, record_of, state_name
from fedcore.server.step import Arrival, ServerState, Sum, accumulate, advance, coded_change
from fedcore.store.ahead import ahead

REPLY_HEADER_BYTES = 1 << 18
"""More than what a reply holds beside its arrays."""


@dataclass
class Traffic:
    """Bytes that the server saw coming from the sites, and those it knows they get of it.

    What they get beside, they measure themselves.
    """

    up: int = 0
    down: int = 0


def aggregate(
    run: Run, round_num: int, orders: Sequence[TrainOrder], dropped: Mapping[str, str]
) -> RoundRecord:
    """Sum what arrived, add the noise, and commit the round; what is committed already stays.

    Raises QuorumNotReached, with each site's reason, when fewer than ``min_clients`` updates are
    usable: nothing is committed then, and the same round can be tried again.
    """
    started = time.perf_counter()
    state = load_state(run, round_num)
    sizes: dict[str, int] = {}
    summed, survivors = _sum_of_survivors(run, state, orders, dropped, sizes)
    traffic = Traffic(up=sum(sizes.values()))
    seconds = {"aggregate": time.perf_counter() - started}
    return commit(run, state, orders, summed, survivors.dropped, traffic, seconds)


def commit(
    run: Run,
    state: ServerState,
    orders: Iterable[WorkOrder],
    summed: Sum,
    dropped: Mapping[str, str],
    traffic: Traffic,
    seconds: Mapping[str, float],
) -> RoundRecord:
    """Add the noise to the sum, and commit the round; what is committed already stays.

    ``seconds``: the server's own until now, by phase.
    """
    round_num, started = state.round_num, time.perf_counter()
    following = advance(run.plan, state, summed, len(run.population))
    if not run.exchange.create_state(run.run_id, state_name(round_num + 1), following.arrays()):
        following = load_state(run, round_num + 1)  # whoever drew first: one noisy sum, ever
    _publish(run, state, following)
    record = RoundRecord(
        run_id=run.run_id,
        round_num=round_num,
        cohort=tuple(order.site for order in orders),
        weights=summed.weights,
        dropped=dropped,
        params_digest=flat.digest(following.public),
        data=summed.data,
        measurements=summed.measurements,
        bytes_up=traffic.up,
        bytes_down=traffic.down
        + int(sum(said.get("bytes_down", 0) for said in summed.measurements.values())),
        seconds={**seconds, "commit": time.perf_counter() - started},
    )
    if not run.exchange.create_record(run.run_id, f"rounds/{round_num:05d}/record", record):
        return record_of(run, round_num) or record
    return record


def _publish(run: Run, state: ServerState, following: ServerState) -> None:
    """The params of the next round: whole, and coded as a change for those who have the last."""
    exchange, round_num = run.exchange, following.round_num
    if run.plan.compression.down:
        told = coded_change(run.plan, state, following)
        exchange.publish_change(run.run_id, round_num, told, compress=run.plan.compression.compress)
    exchange.publish_params(run.run_id, round_num, following.public)


def _sum_of_survivors(
    run: Run,
    state: ServerState,
    orders: Sequence[TrainOrder],
    dropped: Mapping[str, str],
    sizes: dict[str, int],
) -> tuple[Sum, Survivors]:
    """The sum over the survivors that are committed; this call commits them if nobody did yet."""
    name = f"rounds/{state.round_num:05d}/survivors"
    survivors = run.exchange.record(run.run_id, name, Survivors)
    if survivors is None:
        usable = [order for order in orders if order.site not in dropped]
        summed = accumulate(run.plan, state, arrivals(run, usable, _limit(state), sizes))
        survivors = _survivors(run, state.round_num, orders, {**dropped, **summed.rejected})
        if run.exchange.create_record(run.run_id, name, survivors):
            return summed, survivors
        survivors = run.exchange.record(run.run_id, name, Survivors) or survivors
    sizes.clear()
    usable = [order for order in orders if order.site in survivors.sites]
    return accumulate(run.plan, state, arrivals(run, usable, _limit(state), sizes)), survivors


def _survivors(
    run: Run, round_num: int, orders: Sequence[TrainOrder], reasons: Mapping[str, str]
) -> Survivors:
    sites = tuple(order.site for order in orders if order.site not in reasons)
    wanted = run.plan.cohort.min_clients
    if len(sites) < wanted:
        told = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items()))
        raise QuorumNotReached(
            f"round {round_num}: {len(sites)} usable updates of {len(orders)}, and the plan "
            f"wants {wanted} ({told})"
        )
    return Survivors(sites, dict(sorted(reasons.items())))


def arrivals(
    run: Run, orders: Iterable[WorkOrder], limit: int, sizes: dict[str, int]
) -> Iterator[Arrival]:
    """The replies in site order, one in memory and one on its way, each of at most ``limit`` bytes.

    Notes their sizes.
    """

    def read(order: WorkOrder) -> Arrival:
        try:
            reply, sizes[order.site] = run.exchange.reply(order, max_bytes=limit)
        except (UpdateRejected, NotFound) as error:
            return order.site, UpdateRejected(str(error))
        return order.site, reply

    return ahead(read(order) for order in sorted(orders, key=lambda order: order.site))


def _limit(state: ServerState) -> int:
    return flat.nbytes(state.params) + REPLY_HEADER_BYTES
