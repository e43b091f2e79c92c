"""Clients as local processes: one per site, started once and kept warm over the rounds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fedcore.errors import PERMANENT_EXITS
from fedcore.launch.api import RUNNING, WorkOrder
from fedcore.launch.tether import Tethered, spawn
from fedcore.records import ClientStatus
from fedcore.settings import inherited_environment

_CLIENT = (sys.executable, "-m", "fedcore", "client")
_RESTARTS = 3


class ProcessLauncher:
    """``environments``: site → the environment variables of its client (its own keys, no others).

    A client that crashes is started again, at most three times an order; one that ends with a
    permanent exit code is not.
    """

    def __init__(self, environments: Mapping[str, Mapping[str, str]], logs: Path) -> None:
        self._environments = environments
        self._logs = logs
        self._clients: dict[str, Tethered] = {}
        self._orders: dict[str, tuple[str, int]] = {}
        self._starts: dict[str, int] = {}

    def ensure(self, order: WorkOrder) -> None:
        site, place = order.site, (order.run_id, order.seq)
        client = self._clients.get(site)
        if client is not None and client.poll() is None:
            return
        if self._orders.get(site) != place:
            self._orders[site], self._starts[site] = place, 0
        self._starts[site] += 1
        self._clients[site] = spawn(
            [*_CLIENT, order.run_id, "--first-order", str(order.seq)],
            env={**inherited_environment(), **self._environments[site]},
            log=self._logs / f"client-{site}.log",
        )

    def poll(self, site: str) -> ClientStatus:
        client = self._clients.get(site)
        code = client.poll() if client is not None else None
        if client is None or code is None:
            return RUNNING
        reason = f"its client ended with exit code {code}: {client.log_tail(1).strip()}"
        return ClientStatus(
            "failed", reason, code in PERMANENT_EXITS or self._starts[site] > _RESTARTS
        )

    def cancel(self, site: str, run_id: str) -> None:  # noqa: ARG002  # it serves one run
        client = self._clients.pop(site, None)
        if client is not None:
            client.terminate()

    def close(self) -> None:
        """End every client."""
        for site in list(self._clients):
            self.cancel(site, "")
