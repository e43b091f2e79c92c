"""Offering the flow in Prefect's UI, from a process on this machine or in the server's pod."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.train import train

_POLL_SECONDS = 1.0


def serve_flows(
    *, plan: Path, federation: Path, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Deploy ``train`` with these defaults and run what the UI asks for, until interrupted.

    ``on_ready`` is called when the UI has the deployment.
    """
    deployment: Any = train.to_deployment(
        name="train",
        description="Train a plan across a federation's sites, judge the model and release it.",
        parameters={"plan": str(plan), "federation": str(federation)},
        entrypoint_type=EntrypointType.MODULE_PATH,  # whatever the working directory is
    )
    runner = _Runner(query_seconds=_POLL_SECONDS)
    runner.add_deployment(deployment)
    on_ready()
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


class _Runner(Runner):
    """Prefect's runner, which ends on SIGTERM with the exit code that says so."""

    def handle_sigterm(self, *_: Any, **__: Any) -> None:
        """Unwind: leaving the runner ends its flow runs."""
        sys.exit(128 + signal.SIGTERM)
