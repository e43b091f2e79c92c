"""Orders, settings and a client for the launcher's tests on the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kube import Container, KubeApi

from fedcore.config.job import KubernetesSite
from fedcore.launch.api import Launcher
from fedcore.records import ClientStatus, TrainOrder

NAMESPACE = "fedcore-north"
IMAGE = "example.org/fedcore-client@sha256:" + "0" * 64
CONFIG = {"fedcore-client": {"exchange.json": "{}", "data.json": "{}"}}
KEYS = {
    "fedcore-client": {
        f"{place}-{part}-key": "key"
        for place in ("exchange", "data")
        for part in ("access", "secret")
    }
}
"""What the site's chart makes: without it no container starts."""


def order(seq: int = 0, *, site: str = "north", run_id: str = "run-1") -> TrainOrder:
    return TrainOrder(run_id, site, seq, seq // 2, "a" * 64, "b" * 64)


def settings(
    namespace: str = NAMESPACE, kubeconfig: Path | None = None, **job: Any
) -> KubernetesSite:
    fields = {"image": IMAGE, "pending_seconds": 1, **job}
    return KubernetesSite.model_validate(
        {"namespace": namespace, "kubeconfig": kubeconfig, "job": fields}
    )


class Client:
    """What a client's container does in these tests: wait, then end with the code it is told."""

    def __init__(self) -> None:
        self.exits: list[int] = []
        """Exit codes of the containers to come; when none is left, they run until stopped."""

    def __call__(self, container: Container) -> int:
        code = self.exits.pop(0) if self.exits else None
        container.write("starting\nthe last word\n")
        if code is not None:
            return code
        container.stopping.wait(60)
        return 143


def until(
    kube: KubeApi, launcher: Launcher, told: Callable[[ClientStatus], bool], seconds: float = 20
) -> ClientStatus:
    """Poll as the server does, until the status is as wanted."""
    status: list[ClientStatus] = []

    def look() -> bool:
        status[:] = [launcher.poll("north")]
        return told(status[0])

    try:
        kube.until(look, seconds=seconds)
    except AssertionError as error:
        raise AssertionError(f"last seen: {status}") from error
    return status[0]


def failed(status: ClientStatus) -> bool:
    return status.state == "failed"
