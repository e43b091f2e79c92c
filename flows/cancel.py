"""What Prefect calls when a run is cancelled: nothing of it goes on at the sites."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from fedcore.config import federation as federations
from fedcore.server.connect import launchers, server_store
from fedcore.store.envelope import load_key
from flows.names import run_id_of

log = logging.getLogger("fedcore.run")


def end_clients(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Delete the run's Jobs at every site, and withdraw what was asked of the agents.

    Runs in the process that watches the flow's, which is gone by then, whatever it was doing.
    """
    asked = flow_run.parameters
    federation = federations.load(Path(asked["federation"]))
    run_id = run_id_of(asked, flow_run.id)
    logs = Path(asked["federation"]).parent / "logs"
    key = load_key(federation.signing_key)
    with launchers(federation, server_store(federation), key, logs) as launcher:
        for site, reason in launcher.cancel_run(run_id).items():
            log.warning("site %s: its client was not ended: %s", site, reason)
    log.info("run %s was cancelled; --resume, or a retry of the flow run, goes on with it", run_id)
