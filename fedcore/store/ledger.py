"""The site's own ledger, in the site's own bucket: which order it accepted for which place.

It is written before the work begins, so that a site never answers two different orders for one
place of one run, whatever the server, or somebody with the server's key, sends later.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from fedcore.errors import OrderRefused
from fedcore.records import Order
from fedcore.store.api import Store


class Ledger:
    """Write-once entries below ``derivatives/``, where a BIDS data set has room for them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def accept(self, order: Order, digest: str) -> None:
        """Note the order. Raises OrderRefused if another one was accepted in its place."""
        key = f"derivatives/fedcore/ledger/{order.run_id}/{order.seq:06d}.json"
        entry = json.dumps({"digest": digest, **asdict(order)}, sort_keys=True).encode()
        if not self._store.create(key, entry) and self._store.get(key) != entry:
            raise OrderRefused(
                f"another order was accepted as number {order.seq} of run {order.run_id!r} before"
            )
