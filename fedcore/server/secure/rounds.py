"""A secure round at the server: agree on keys, wait for the updates, reveal their sum, commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedcore import params as flat
from fedcore.aggregation import mean
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn, shapes_of
from fedcore.config.plan import Plan
from fedcore.launch.api import Launcher
from fedcore.privacy import fixed_point
from fedcore.privacy.division import Division, Parts, division
from fedcore.records import RoundRecord, TrainOrder
from fedcore.server.rounds import commit
from fedcore.server.run import Run, load_state
from fedcore.server.secure.stages import Attempt
from fedcore.server.secure.summing import Agreement, Vector, agree, open_sum
from fedcore.server.step import ServerState, Sum


def agree_on_keys(
    run: Run, round_num: int, orders: Sequence[TrainOrder], launcher: Launcher
) -> Agreement:
    """Let the sites exchange their keys for this round, before they train.

    Raises QuorumNotReached if too few do: the round is begun anew then, with fresh keys.
    """
    attempt = Attempt(run, round_num, {order.site: order for order in orders}, launcher)
    params, change = load_state(run, round_num).shared, None
    codec, turn = chain(**run.plan.coding("up", round_num)), Turn(run.plan.seed, round_num, "")
    if run.plan.secure_aggregation.encrypt_share < 1 and round_num > 0:
        before = load_state(run, round_num - 1).shared
        change = codec.encode(flat.subtract(params, before), turn)
    like = codec.encode(params, turn)
    fields = run.plan.division_of_updates()

    def divide(sites: int) -> Division:
        return division(like, sites=sites, change=change, **fields)

    return agree(attempt, Vector(fixed_point.length(like), divide))


def reveal_sum(
    run: Run, round_num: int, agreed: Agreement, dropped: Mapping[str, str]
) -> RoundRecord:
    """Add what arrived, have the sum opened, and commit the round.

    Raises QuorumNotReached if too few sites stayed: no update was revealed then, and the round is
    begun anew.
    """
    state, attempt = load_state(run, round_num), agreed.attempt
    opened = open_sum(agreed, dropped)
    survivors, told = opened.survivors, opened.told
    summed = Sum(
        total=_total(run.plan, state, agreed.divided, opened.parts),
        weights={site: {} for site in survivors.sites},  # which site trained what is not known
        rejected={},
        data=told.data,
        measurements=told.measurements,
    )
    orders = attempt.orders.values()
    return commit(run, state, orders, summed, survivors.dropped, attempt.traffic, opened.seconds)


def _total(plan: Plan, state: ServerState, divided: Division, parts: Parts) -> mean.Sums:
    """The sum, decoded: what adds up before decoding does so after it."""
    codec, turn = chain(**plan.coding("up", state.round_num)), Turn(plan.seed, state.round_num, "")
    sums, trained = divided.combine(parts, codec.encode(state.params, turn))
    like = shapes_of(flat.only(state.params, trained))
    return mean.Sums(codec.expand(sums, like, turn), trained)
