"""The site's own ledger, in the site's own bucket: which order it accepted for which place.

It is written before the work begins, so that a site never answers two different orders for one
place of one run, whatever the server, or somebody with the server's key, sends later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fedcore.errors import OrderRefused
from fedcore.records import Order
from fedcore.store.api import Store

_FOLDER = "derivatives/fedcore/ledger/"


class Ledger:
    """Write-once entries below ``derivatives/``, where a BIDS data set has room for them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def accept(self, order: Order, digest: str, egress: int = 1) -> int:
        """Note the order, and the number ``egress`` from which on the record has its replies.

        Returns the number noted when it was first accepted. Raises OrderRefused if another order
        was accepted in its place.
        """
        key = f"{_FOLDER}{order.run_id}/{order.seq:06d}.json"
        entry = {"digest": digest, "egress": egress, **asdict(order)}
        if self._store.create(key, json.dumps(entry, sort_keys=True).encode()):
            return egress
        found = json.loads(self._store.get(key))
        if found.get("digest") != digest:
            raise OrderRefused(
                f"another order was accepted as number {order.seq} of run {order.run_id!r} before"
            )
        return int(found.get("egress", 1))


def accepted_orders(store: Store) -> Iterator[dict[str, Any]]:
    """Every order that the site accepted, with its digest, by run and number."""
    return (json.loads(store.get(key)) for key in sorted(store.list(_FOLDER)))
