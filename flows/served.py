"""What a flow run needs that was started from Prefect's UI, and not by ``fedcore run``.

These are hooks of the flow; a flow run without a deployment is somebody else's business.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.outcome import write_outcome
from fedcore.server.result import finished_run
from flows.names import run_id_of

_LOOK = 0.5


def end_with_parent(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """End this process, and with it its clients, soon after the one that serves the flow.

    Prefect ends its flow runs when it is told to end, but not if it is killed.
    """
    if flow_run.deployment_id is None:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, name="fedcore-parent", daemon=True).start()


def write_report(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Leave report and model beside the federation file, as ``fedcore run`` does."""
    if flow_run.deployment_id is None:
        return
    asked, logger = flow_run.parameters, flow_run_logger(flow_run)
    federation = Path(asked["federation"])
    run_id = run_id_of(asked, flow_run.id)
    result = finished_run(federations.load(federation), plans.load(Path(asked["plan"])), run_id)
    if result is None:
        return
    try:
        logger.info("report %s", write_outcome(result, {}, federation)["report"])
    except OSError as error:
        logger.warning("there is no report on this machine: %s", error)
