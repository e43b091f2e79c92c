"""What a run is called, in fedcore and in Prefect's UI alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import runtime

from fedcore.config import plan as plans
from fedcore.errors import FedcoreError


def run_id_of(asked: Mapping[str, Any], flow_run_id: object) -> str:
    """The run that a flow run with these parameters is at work on.

    Without a ``run_id`` it follows from the flow run's own id, so that a retry of the flow run
    goes on with the same run.
    """
    given = asked.get("run_id")
    return given or f"{plans.load(Path(asked['plan'])).name}-{str(flow_run_id)[:8]}"


def flow_run_name() -> str:
    """The name of the flow run that is about to begin: its run's id."""
    try:
        return run_id_of(runtime.flow_run.parameters, runtime.flow_run.id)
    except FedcoreError:  # the flow itself will say what is wrong with its plan
        return str(runtime.flow_run.name)
