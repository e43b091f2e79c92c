"""``launch: agent``: the site's own agent starts the client; the server asks, and waits.

For hospitals that let nobody call in: what is asked and answered lies in the exchange bucket.
"""

from __future__ import annotations

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.launch.api import RUNNING, WorkOrder
from fedcore.records import ClientStatus
from fedcore.store.calls import Calls

_LOOK = 2.0  # seconds between looks at what an agent says: each is a request


class AgentLauncher:
    """The server's side of it."""

    def __init__(self, calls: Calls, signing_key: Ed25519PrivateKey) -> None:
        self._calls = calls
        self._key = signing_key
        self._orders: dict[str, WorkOrder] = {}
        self._said: dict[str, tuple[float, ClientStatus]] = {}

    def ensure(self, order: WorkOrder) -> None:
        self._orders[order.site] = order
        self._said[order.site] = (time.monotonic(), RUNNING)
        self._calls.call(order.site, order.run_id, order.seq, self._key)

    def poll(self, site: str) -> ClientStatus:
        order = self._orders.get(site)
        when, status = self._said.get(site, (0.0, RUNNING))
        if order is None or time.monotonic() - when < _LOOK:
            return status
        status = self._calls.said(site, order.run_id, order.seq) or RUNNING
        self._said[site] = (time.monotonic(), status)
        return status

    def cancel(self, site: str, run_id: str) -> None:
        self._orders.pop(site, None)
        self._calls.withdraw(site, run_id, self._key)

    def close(self) -> None:
        """The runs are over: nothing is asked for any more."""
        for site, order in list(self._orders.items()):
            self.cancel(site, order.run_id)
