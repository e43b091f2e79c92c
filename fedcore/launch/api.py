"""The one protocol through which the server gets clients to run, wherever that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fedcore.errors import FedcoreError
from fedcore.records import ClientStatus, EvalOrder, TrainOrder

WorkOrder = TrainOrder | EvalOrder
"""An order that a client has to answer."""


RUNNING = ClientStatus("running")


class Launcher(Protocol):
    """Starts, watches and ends clients. Every method may be called again without harm."""

    def ensure(self, order: WorkOrder) -> None:
        """See to it that a client of the order's site is alive that will answer it.

        What stands in the way is not raised: ``poll`` tells it, and the other sites go on.
        """

    def poll(self, site: str) -> ClientStatus:
        """How that client is now."""

    def cancel(self, site: str, run_id: str) -> None:
        """End the clients of that run at the site."""


class ExternalLauncher:
    """``launch: none``: the sites start their clients themselves; the server only waits."""

    def ensure(self, order: WorkOrder) -> None:
        """Nothing to do."""

    def poll(self, site: str) -> ClientStatus:  # noqa: ARG002
        """Taken to be running: whether a reply comes is for the deadline to say."""
        return RUNNING

    def cancel(self, site: str, run_id: str) -> None:
        """Nothing to do."""


class LauncherBySite:
    """Each site by the launcher it asked for."""

    def __init__(self, launchers: Mapping[str, Launcher]) -> None:
        self._launchers = launchers
        self._runs: dict[str, str] = {}

    def ensure(self, order: WorkOrder) -> None:
        self._runs[order.site] = order.run_id
        self._launchers[order.site].ensure(order)

    def poll(self, site: str) -> ClientStatus:
        return self._launchers[site].poll(site)

    def cancel(self, site: str, run_id: str) -> None:
        self._launchers[site].cancel(site, run_id)

    def cancel_run(self, run_id: str) -> dict[str, str]:
        """End the run's clients at every site. Returns site → why that was not possible."""
        failed = {}
        for site in self._launchers:
            try:
                self.cancel(site, run_id)
            except FedcoreError as error:
                failed[site] = str(error)
        return failed

    def cancel_all(self) -> dict[str, str]:
        """``cancel_run`` of the runs that clients were asked for."""
        return {
            s: why for run in set(self._runs.values()) for s, why in self.cancel_run(run).items()
        }
