"""The flow that trains: it reads like the round it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, runtime
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.errors import ServiceUnavailable
from fedcore.launch.api import Launcher
from fedcore.monitor import exposed
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server.begin import initial_params
from fedcore.server.connect import connect
from fedcore.server.evaluation import next_round
from fedcore.server.events import tell
from fedcore.server.orders import train_orders
from fedcore.server.result import finished_run
from fedcore.server.run import Run, open_run, record_of
from fedcore.settings import flow_settings
from flows import tasks
from flows.cancel import end_clients
from flows.evaluate import evaluate_sites
from flows.names import flow_run_name, run_id_of
from flows.release import release_model
from flows.served import end_with_parent, write_report
from flows.show import AWAY, RoundTables

RunId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=80)]


@flow(
    name="train",
    flow_run_name=flow_run_name,
    persist_result=False,
    on_running=[end_with_parent],
    on_completion=[write_report],
    on_cancellation=[end_clients],
)
def train(plan: str, federation: str, run_id: RunId | None = None) -> dict[str, Any]:
    """Train a plan with a federation's sites, judge the model and release it.

    Args:
        plan: Path of the plan file (on the machine that runs this flow): what to train, and how.
        federation: Path of the federation file, also there: the sites and the exchange bucket.
        run_id: None for a new run. The id of an earlier run goes on with that run, if the plan
            is the same; a retry of a flow run does so by itself.
    """
    what, who = plans.load(Path(plan)), federations.load(Path(federation))
    run_id = run_id_of({"plan": plan, "run_id": run_id}, runtime.flow_run.id)
    settings = flow_settings()
    with (
        exposed(settings.metrics_port, settings.metrics_address),
        connect(who, logs=Path(federation).parent / "logs") as connection,
    ):
        run = open_run(
            connection.exchange,
            what,
            tuple(who.sites),
            run_id,
            connection.signing_key,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            initial=lambda: initial_params(what),
        )
        tell("run", run_id=run.run_id, rounds=what.rounds, sites=run.population)
        first = next_round(run)
        tell("resume", round_num=first)
        with RoundTables() as tables:
            for round_num in range(first, what.rounds):
                tables.add(*train_round(run, round_num, connection.launcher))
        return release_model(run, connection.launcher, connection.store)


def train_here(plan: Path, federation: Path, run_id: str) -> dict[str, Any]:
    """Run the flow in this process; what it logged has reached Prefect when this returns.

    A run that is over is over, even if Prefect is away when it is to be told so. Raises
    ServiceUnavailable if it is away before that, where the run needs it: at its start.
    """
    try:
        return train(plan=str(plan), federation=str(federation), run_id=run_id)
    except Exception as error:
        if not isinstance(error, AWAY) and not isinstance(error.__cause__, AWAY):
            raise
        finished = finished_run(federations.load(federation), plans.load(plan), run_id)
        if finished is None:
            raise ServiceUnavailable(
                f"Prefect's server at {PREFECT_API_URL.value()} does not answer: {error}; is it "
                "up? --resume goes on with the run, if it had begun"
            ) from error
        return finished
    finally:
        APILogWorker.drain_all(timeout=5)


def train_round(
    run: Run, round_num: int, launcher: Launcher
) -> tuple[RoundRecord, EvaluationRecord]:
    """Train and evaluate: one round."""
    record = record_of(run, round_num) or train_sites(run, round_num, launcher)
    return record, evaluate_sites(run, round_num + 1, "validation", launcher)


def train_sites(run: Run, round_num: int, launcher: Launcher) -> RoundRecord:
    """Order, wait, aggregate; in a secure round the sites agree on keys first, and unmask last."""
    orders = train_orders(run, round_num)
    if run.plan.secure_aggregation.mode == "none":
        dropped = tasks.await_replies(run, orders, launcher)
        return tasks.aggregate(run, round_num, orders, dropped)
    agreement = tasks.agree_on_keys(run, round_num, orders, launcher)
    dropped = tasks.await_replies(run, agreement.orders, launcher)
    return tasks.reveal_sum(run, round_num, agreement, dropped)
