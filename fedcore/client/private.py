"""What a client must still know after a kill, in the site's own bucket, until the round is over."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.errors import OrderRefused
from fedcore.records import TrainOrder
from fedcore.store.api import Store


class Private:
    """The secrets of one secure round of one site: written once, deleted when it is over."""

    def __init__(self, store: Store, order: TrainOrder, order_digest: str) -> None:
        self._store = store
        self._place = f"derivatives/fedcore/secure/{order.run_id}/{order.round_num:05d}"
        self._attempt = f"{self._place}.{order.attempt}"
        self._order_digest = order_digest.encode()

    def begin(self) -> None:
        """Take part in this attempt at the round, by this order and no other.

        Two sets of keys of one site in one attempt would let the server play one against the
        other. Raises OrderRefused.
        """
        begun_by = self.remember("order", lambda: self._order_digest)
        if begun_by != self._order_digest:
            raise OrderRefused("this attempt at the round was begun by another order before")

    def remember(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is known as ``name``; what ``make`` gives is kept if there is nothing yet."""
        key = f"{self._attempt}.{name}"
        if not self._store.exists(key):
            self._store.create(key, make())
        return self._store.get(key)

    def forget(self) -> None:
        """Delete every secret of this round, of earlier attempts too."""
        for key in list(self._store.list(f"{self._place}.")):
            if not key.endswith(".order"):
                self._store.delete(key)
