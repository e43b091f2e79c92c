"""The flow that trains: it reads like the round it runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.config.federation import Federation
from fedcore.config.plan import Plan
from fedcore.errors import ServiceUnavailable
from fedcore.launch.api import Launcher
from fedcore.models.initial import build_model
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server.connect import connect, server_store
from fedcore.server.evaluation import next_round
from fedcore.server.events import tell
from fedcore.server.result import result_of
from fedcore.server.run import Run, open_run, record_of
from fedcore.store.envelope import load_key
from fedcore.store.exchange import Exchange
from fedcore.training.state import get_params
from flows import tasks
from flows.cancel import end_clients, run_id_of
from flows.release import release_model

_TABLE_RETRIES = 3
"""Of Prefect's client, after 2, 4 and 8 s: a table is not worth more of the run's time."""

_AWAY = (httpx.TransportError, httpx.HTTPStatusError)
"""What Prefect's client raises, in the end, when the server does not answer or not as it should."""

log = logging.getLogger("fedcore.run")


@flow(name="train", persist_result=False, on_cancellation=[end_clients])
def train(plan: str, federation: str, run_id: str | None = None) -> dict[str, Any]:
    """Train the plan with the federation's sites, judge the model and release it.

    plan: path of the plan file.
    federation: path of the federation file.
    run_id: give that of an earlier run to resume it; a retry of this flow run resumes by itself.
    """
    what, who = plans.load(Path(plan)), federations.load(Path(federation))
    run_id = run_id or run_id_of(what.name, runtime.flow_run.id)
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
    """Run the flow in this process; what it logged has reached Prefect when this returns.

    A run that is over is over, even if Prefect is away when it is to be told so. Raises
    ServiceUnavailable if it is away before that, where the run needs it: at its start.
    """
    try:
        return train(plan=str(plan), federation=str(federation), run_id=run_id)
    except Exception as error:
        if not isinstance(error, _AWAY) and not isinstance(error.__cause__, _AWAY):
            raise
        finished = _finished(plans.load(plan), federations.load(federation), run_id)
        if finished is None:
            raise ServiceUnavailable(
                f"Prefect's server at {PREFECT_API_URL.value()} does not answer: {error}; is it "
                "up? --resume goes on with the run, if it had begun"
            ) from error
        return finished
    finally:
        APILogWorker.drain_all(timeout=5)


def _finished(plan: Plan, federation: Federation, run_id: str) -> dict[str, Any] | None:
    """What came of the run, by the exchange; None if it is not over."""
    exchange = Exchange(server_store(federation))
    version = exchange.record(run_id, "release", int)
    if version is None:
        return None
    population, key = tuple(sorted(federation.sites)), load_key(federation.signing_key)
    return result_of(Run(run_id, plan, population, exchange, key), version)


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
    """The round as an event, and as a table in Prefect's UI if Prefect is there to take it."""
    auc = _macro_auc(evaluation.summary)
    tell(
        "round",
        round_num=record.round_num,
        macro_auc=auc,
        macro_auc_by_site={site: _macro_auc(summary) for site, summary in evaluation.sites.items()},
        dropped=dict(record.dropped),
        record=record,
    )
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _TABLE_RETRIES}):
            create_table_artifact(
                key=f"round-{record.run_id}-{record.round_num:05d}",
                description=f"Round {record.round_num} of {record.run_id}: macro AUC {auc}",
                table=[_row(site, record, evaluation) for site in record.cohort],
            )
    except _AWAY as error:
        log.warning("Prefect has no table of round %d: %s", record.round_num, error)


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
