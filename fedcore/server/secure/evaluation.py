"""An evaluation at the server of which it sees the counts of all sites together, and no site's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fedcore.config import counting
from fedcore.errors import UpdateRejected
from fedcore.evaluation import tally
from fedcore.launch.api import Launcher
from fedcore.privacy.division import whole_numbers
from fedcore.records import EvalOrder, EvaluationRecord
from fedcore.server.evaluation import commit, deviations, slowest, summarise
from fedcore.server.run import Run
from fedcore.server.secure.stages import Attempt
from fedcore.server.secure.summing import Agreement, Opened, Vector, agree, open_sum


def agree_on_keys(run: Run, orders: Sequence[EvalOrder], launcher: Launcher) -> Agreement:
    """Let the sites exchange their keys for this evaluation.

    Raises QuorumNotReached if too few do: it is begun anew then, with fresh keys.
    """
    attempt = Attempt(run, orders[0].round_num, {order.site: order for order in orders}, launcher)
    length = tally.length(_layout(run))
    return agree(attempt, Vector(length, partial(whole_numbers, tally.LARGEST)))


def reveal_statistics(run: Run, agreed: Agreement, dropped: Mapping[str, str]) -> EvaluationRecord:
    """Add what arrived, have the sum opened, and write its figures down.

    Raises QuorumNotReached if too few sites stayed: no count was revealed then, and the evaluation
    is begun anew. UpdateRejected if what was opened are no counts.
    """
    attempt, opened = agreed.attempt, open_sum(agreed, dropped)
    said = opened.told.measurements
    seconds = {**opened.seconds, **slowest(said)}
    record = EvaluationRecord(
        run_id=run.run_id,
        round_num=attempt.round_num,
        split=attempt.split,
        summary=_summary(agreed, opened),
        sites={site: {} for site in opened.survivors.sites},
        num_examples={},
        missing=dict(sorted(opened.survivors.dropped.items())),
        onnx_max_abs_diff=deviations(said),
        bytes_up=attempt.traffic.up,
        bytes_down=attempt.traffic.down + int(sum(of.get("bytes_down", 0) for of in said.values())),
        seconds=seconds,
        data=opened.told.data,
    )
    return commit(run, record)


def _summary(agreed: Agreement, opened: Opened) -> dict[str, Any]:
    attempt, words = agreed.attempt, opened.parts.masked
    if words is None:
        raise ValueError("statistics without masks")
    try:
        sites = len(opened.survivors.sites)
        return summarise(attempt.run, tally.counts(words, _layout(attempt.run), sites))
    except UpdateRejected as error:
        raise UpdateRejected(
            f"{attempt.name}: {error}; some site sent what it did not count, and behind masks "
            "nobody can tell which"
        ) from error


def _layout(run: Run) -> tally.Layout:
    return counting.layout(run.plan.task)
