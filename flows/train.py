"""The flow that trains: it reads like the round it runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.logging.handlers import APILogWorker

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.launch.api import Launcher
from fedcore.models.initial import build_model
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server.connect import connect
from fedcore.server.evaluation import next_round
from fedcore.server.events import tell
from fedcore.server.run import Run, open_run, record_of
from fedcore.training.state import get_params
from flows import tasks
from flows.release import release_model


@flow(name="train", persist_result=False)
def train(plan: str, federation: str, run_id: str | None = None) -> dict[str, Any]:
    """Train the plan with the federation's sites, judge the model and release it.

    plan: path of the plan file.
    federation: path of the federation file.
    run_id: give that of an earlier run to resume it; a retry of this flow run resumes by itself.
    """
    what, who = plans.load(Path(plan)), federations.load(Path(federation))
    run_id = run_id or f"{what.name}-{str(runtime.flow_run.id)[:8]}"
    with connect(who, logs=Path(federation).parent / "logs") as connection:
        run = open_run(
            connection.exchange,
            what,
            tuple(who.sites),
            run_id,
            connection.signing_key,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            initial=lambda: get_params(build_model(what)),
        )
        tell("run", run_id=run.run_id, rounds=what.rounds, sites=run.population)
        first = next_round(run)
        tell("resume", round_num=first)
        for round_num in range(first, what.rounds):
            train_round(run, round_num, connection.launcher)
        return release_model(run, connection.launcher, connection.store)


def train_here(plan: Path, federation: Path, run_id: str) -> dict[str, Any]:
    """Run the flow in this process; what it logged has reached Prefect when this returns."""
    try:
        return train(plan=str(plan), federation=str(federation), run_id=run_id)
    finally:
        APILogWorker.drain_all(timeout=5)


def train_round(run: Run, round_num: int, launcher: Launcher) -> None:
    """Order, wait, aggregate, evaluate: one round."""
    record = record_of(run, round_num)
    if record is None:
        orders = tasks.order_training(run, round_num)
        dropped = tasks.await_replies(run, orders, launcher)
        record = tasks.aggregate(run, round_num, orders, dropped)
    checks = tasks.order_evaluation(run, round_num + 1, "validation")
    absent = tasks.await_replies(run, checks, launcher)
    evaluation = tasks.evaluate(run, checks, absent)
    show(record, evaluation)


def show(record: RoundRecord, evaluation: EvaluationRecord) -> None:
    """The round as a table in Prefect's UI, and as an event."""
    auc = _macro_auc(evaluation.summary)
    tell(
        "round",
        round_num=record.round_num,
        macro_auc=auc,
        macro_auc_by_site={site: _macro_auc(summary) for site, summary in evaluation.sites.items()},
        dropped=dict(record.dropped),
        record=record,
    )
    create_table_artifact(
        key=f"round-{record.run_id}-{record.round_num:05d}",
        description=f"Round {record.round_num} of {record.run_id}: macro AUC {auc}",
        table=[_row(site, record, evaluation) for site in record.cohort],
    )


def _row(site: str, record: RoundRecord, evaluation: EvaluationRecord) -> dict[str, Any]:
    said = record.measurements.get(site, {})
    return {
        "site": site,
        "state": record.dropped.get(site, "trained"),
        "examples": record.data[site].num_subjects if site in record.data else 0,
        "loss": said.get("loss"),
        "update norm": said.get("update_norm"),
        "macro AUC (validation)": _macro_auc(evaluation.sites.get(site, {})),
    }


def _macro_auc(summary: Mapping[str, Any]) -> float | None:
    value: float | None = summary.get("overall", {}).get("macro_auc", {}).get("value")
    return value
