"""Adding up the sites' statistics into figures, once per evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.config import counting
from fedcore.errors import NotFound, UpdateRejected
from fedcore.evaluation.metrics import merge
from fedcore.evaluation.tally import LARGEST
from fedcore.records import EvalOrder, Evaluation, EvaluationRecord, Refusal, Split, Statistics
from fedcore.server.run import Run

Measurements = Mapping[str, Mapping[str, float]]
"""What the sites measured, by site."""

_MAX_BYTES = 1 << 26


def evaluation_of(run: Run, round_num: int, split: Split) -> EvaluationRecord | None:
    """The evaluation of the params at the start of ``round_num``, if it was written."""
    return run.exchange.record(run.run_id, _name(round_num, split), EvaluationRecord)


def next_round(run: Run) -> int:
    """The first round that is not over: without a record, or without the evaluation after it."""
    for round_num in range(run.plan.rounds):
        if evaluation_of(run, round_num + 1, "validation") is None:
            return round_num
    return run.plan.rounds


def evaluate(run: Run, orders: Sequence[EvalOrder], dropped: Mapping[str, str]) -> EvaluationRecord:
    """Merge the replies and write the figures down; what is written already stays.

    A site whose statistics are missing or unusable is named with its reason; whether the rest is
    enough is for the gate to say.
    """
    round_num, split = orders[0].round_num, orders[0].split
    written = evaluation_of(run, round_num, split)
    if written is not None:
        return written
    started = time.perf_counter()
    replies: dict[str, Evaluation] = {}
    merged: Statistics = {}
    sites: dict[str, dict[str, Any]] = {}
    missing = dict(dropped)
    bytes_up = 0
    for order in sorted(orders, key=lambda order: order.site):
        if order.site in missing:
            continue
        try:
            reply, size = _read(run, order)
            summary = summarise(run, merge([reply.statistics]))
            merged = merge([merged, reply.statistics])
            sites[order.site], replies[order.site] = summary, reply
            bytes_up += size
        except (UpdateRejected, NotFound) as error:
            missing[order.site] = str(error)
    said = {site: reply.measurements for site, reply in replies.items()}
    record = EvaluationRecord(
        run_id=run.run_id,
        round_num=round_num,
        split=split,
        summary=summarise(run, merged),
        sites=sites,
        num_examples={site: reply.num_examples for site, reply in replies.items()},
        missing=dict(sorted(missing.items())),
        onnx_max_abs_diff=deviations(said),
        bytes_up=bytes_up,
        bytes_down=int(sum(of.get("bytes_down", 0) for of in said.values())),
        seconds={"summarise": time.perf_counter() - started, **slowest(said)},
        data={site: reply.data for site, reply in replies.items()},
    )
    return commit(run, record)


def commit(run: Run, record: EvaluationRecord) -> EvaluationRecord:
    """Write the evaluation down; what is written already stays, and is returned."""
    if not run.exchange.create_record(run.run_id, _name(record.round_num, record.split), record):
        return evaluation_of(run, record.round_num, record.split) or record
    return record


def summarise(run: Run, statistics: Statistics) -> dict[str, Any]:
    """The plan's figures of these statistics. Raises UpdateRejected where nobody counted so."""
    return counting.summarise(run.plan.task, statistics)


def deviations(said: Measurements) -> dict[str, float]:
    """Site → how far the export was off there, where it was asked."""
    name = "onnx_max_abs_diff"
    return {site: of[name] for site, of in said.items() if name in of}


def slowest(said: Measurements) -> dict[str, float]:
    """Seconds by phase of the sites, each of the site that took longest."""
    prefix = "seconds."
    phases = sorted({name for of in said.values() for name in of if name.startswith(prefix)})
    return {
        phase.removeprefix(prefix): max(of.get(phase, 0.0) for of in said.values())
        for phase in phases
    }


def _read(run: Run, order: EvalOrder) -> tuple[Evaluation, int]:
    reply, size = run.exchange.reply(order, max_bytes=_MAX_BYTES)
    if isinstance(reply, Refusal):
        raise UpdateRejected(f"refused: {reply.reason}")
    if not isinstance(reply, Evaluation):
        raise UpdateRejected("sent an update where an evaluation was asked for")
    for name, array in reply.statistics.items():
        if not ((array >= 0) & (array <= LARGEST)).all():  # NaN fails too
            raise UpdateRejected(f"has a count in {name!r} that is not a number of subjects")
    return reply, size


def _name(round_num: int, split: Split) -> str:
    return f"evaluations/{round_num:05d}-{split}"
