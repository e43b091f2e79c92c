"""The launcher on a real cluster, asked as the server asks it, and watched until it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from cluster_api import Access, Object, wait_for
from cluster_sites import Site

from fedcore.errors import FedcoreError
from fedcore.launch import manifest
from fedcore.launch.kubernetes import KubernetesLauncher
from fedcore.records import ClientStatus, TrainOrder

SMALL: dict[str, Any] = {"gpu": None, "cpu": "100m", "memory": "128Mi"}
"""Job settings of a pod that does nothing."""


def order_of(run_id: str, seq: int = 0, site: str = "bare") -> TrainOrder:
    """An order of a run that no server knows."""
    return TrainOrder(run_id, site, seq, seq // 2, "ab" * 32, "cd" * 32)


class Launched:
    """A launcher for one site, and the order it was asked for last."""

    def __init__(self, site: Site, **job: Any) -> None:
        self.site = site
        self.launcher = KubernetesLauncher({site.name: site.place(**job)})
        self.runs: set[str] = set()

    def ensure(self, order: TrainOrder) -> None:
        self.runs.add(order.run_id)
        self.launcher.ensure(order)

    def cancel(self, run_id: str) -> None:
        self.launcher.cancel(self.site.name, run_id)

    def takes_up(self) -> None:
        """Poll until its watches have seen the namespace, and so whatever is at work there."""
        place = self.launcher._places[self.site.name]  # no status says so
        self.until("it has looked into the namespace", lambda _: place.listed())
        self.launcher.poll(self.site.name)

    def makes(self, admin: Access, run_id: str) -> Object:
        """The run's one Job, once there is one."""
        self.until("there is a Job", lambda _: jobs(admin, self.site, run_id))
        (found,) = jobs(admin, self.site, run_id)
        return found

    def until(
        self, what: str, told: Callable[[ClientStatus], Any], timeout: float = 60
    ) -> ClientStatus:
        """Poll until the status is as wanted."""
        last: list[ClientStatus] = []

        def look() -> ClientStatus | None:
            last[:] = [self.launcher.poll(self.site.name)]
            return last[0] if told(last[0]) else None

        try:
            return wait_for(what, look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the launcher said last: {last}") from error

    def fails(self, timeout: float = 90) -> ClientStatus:
        """The status, once it is that the client failed."""
        return self.until("the client has failed", lambda s: s.state == "failed", timeout)

    def says(self, words: str, timeout: float = 60) -> ClientStatus:
        """The status, once it is that the client waits for what these words say."""
        return self.until(f"it says {words!r}", lambda s: words in s.reason, timeout)


class Launches:
    """Makes launchers; ``end`` cancels their runs and closes them."""

    def __init__(self) -> None:
        self._made: list[Launched] = []

    def __call__(self, site: Site, **job: Any) -> Launched:
        self._made.append(Launched(site, **job))
        return self._made[-1]

    def end(self) -> None:
        for launched in self._made:
            for run_id in launched.runs:
                with contextlib.suppress(FedcoreError):
                    launched.cancel(run_id)
            launched.launcher.close()


def jobs(admin: Access, site: Site, run_id: str) -> list[Object]:
    """The run's Jobs that are not being deleted."""
    selector = f"{manifest.RUN_LABEL}={manifest.label(run_id)}"
    found = admin.list("Job", site.namespace, selector)
    return [job for job in found if "deletionTimestamp" not in job["metadata"]]


def pods(admin: Access, site: Site, run_id: str) -> list[Object]:
    """The run's pods, oldest first."""
    selector = f"{manifest.RUN_LABEL}={manifest.label(run_id)}"
    found = admin.list("Pod", site.namespace, selector)
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def scripted(admin: Access, site: Site, run_id: str, script: str, **job: Any) -> TrainOrder:
    """Make the Job that fedcore would make for an order, but running a Python script of ours.

    The hospital itself is not bound by its policy for the server, so its administrator may.
    """
    order = order_of(run_id, site=site.name)
    place = site.place(**SMALL, **job)
    built = manifest.job(place.job, site.namespace, order)
    container = built["spec"]["template"]["spec"]["containers"][0]
    container["command"], container["args"] = ["python", "-c", script], []
    admin.create(built)
    return order
