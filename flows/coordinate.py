"""The server's process in a cluster: offers the flows, and takes up what its predecessor left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL
from prefect.states import AwaitingRetry

from flows.serve import serve_flows
from flows.train import train

log = logging.getLogger("fedcore.run")


def coordinate(
    *, plan: Path, federation: Path, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Take up interrupted runs and serve the flows, until ended. ``on_ready``: see there.

    There must be one such process at a time (the chart's Deployment has one replica, recreated).
    """
    take_up()
    log.info("runs of %s/train are taken from %s", train.name, PREFECT_API_URL.value())
    serve_flows(plan=plan, federation=federation, on_ready=on_ready)


def take_up() -> list[str]:
    """Schedule anew each run that was at work when its process ended. Returns their names.

    It is the same flow run, so the same run of fedcore: it goes on at the round it had reached.
    """
    at_work = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with get_client(sync_client=True) as client:
        interrupted = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[train.name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=at_work)),
        )
        ours = [run for run in interrupted if run.deployment_id is not None]
        for run in ours:
            log.info("run %s was interrupted; it goes on", run.name)
            client.set_flow_run_state(run.id, AwaitingRetry(), force=True)
    return [run.name for run in ours]
