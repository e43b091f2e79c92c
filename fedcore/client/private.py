"""What a client must still know after a kill, in the site's own bucket, until the round is over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from fedcore.errors import OrderRefused
from fedcore.records import EvalOrder, TrainOrder
from fedcore.store.api import Store

_BEGUN, _OPENED = "order", "opened"
"""These hold no secret, and are kept."""

_NOISE = "noise"
"""Of a round, and not of one attempt at it."""


class Private:
    """The secrets of one secure round of one site: written once, deleted when it is over.

    An evaluation whose statistics are summed behind masks is such a round too.
    """

    def __init__(self, store: Store, order: TrainOrder | EvalOrder, order_digest: str) -> None:
        self._store = store
        self._run_id = order.run_id
        what = "" if isinstance(order, TrainOrder) else f"-{order.split}"
        self._round = f"{_place(order.run_id)}{order.round_num:05d}{what}"
        self._place = f"{self._round}.{order.attempt}"
        self._order_digest = order_digest.encode()

    def begin(self) -> None:
        """Take part in this attempt at the round, by this order and no other.

        Two sets of keys of one site in one attempt would let the server play one against the
        other. Raises OrderRefused.
        """
        begun_by = self.remember(_BEGUN, lambda: self._order_digest)
        if begun_by != self._order_digest:
            raise OrderRefused("this attempt at the round was begun by another order before")
        forget(self._store, self._run_id, but=(f"{self._place}.", f"{self._round}.{_NOISE}"))

    def open_for(self, survivors: Sequence[str]) -> None:
        """Help to open the sum over these sites, and over no others in this round, ever.

        What a site sends follows from the round's params, so two sums over almost the same sites
        would differ by one site's update. A server can always say that an attempt failed and begin
        the round anew; here it gets nothing by it. Raises OrderRefused.
        """
        key, wanted = f"{self._round}.{_OPENED}", json.dumps(sorted(survivors)).encode()
        if not self._store.create(key, wanted) and self._store.get(key) != wanted:
            raise OrderRefused(
                "this site helped to open the round's sum over other sites before: the difference "
                "of two sums would be a site's update; the round needs the same sites again"
            )

    def noise_key(self) -> bytes:
        """32 random bytes that the site's noise in this round is drawn from, in every attempt.

        Noise drawn anew for a sum that was opened before would be a second look at it. Raises
        OrderRefused for a round that was opened and is over.
        """
        key = f"{self._round}.{_NOISE}"
        if not self._store.exists(key):
            if self._store.exists(f"{self._round}.{_OPENED}"):
                raise OrderRefused(
                    "this site helped to open the round's sum before, and has forgotten its noise "
                    "since: with other noise, the sum would be shown twice"
                )
            self._store.create(key, os.urandom(32))
        return self._store.get(key)

    def remember(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is known as ``name``; what ``make`` gives is kept if there is nothing yet."""
        key = f"{self._place}.{name}"
        if not self._store.exists(key):
            self._store.create(key, make())
        return self._store.get(key)


def forget(store: Store, run_id: str, *, but: tuple[str, ...] = ()) -> None:
    """Delete every secret of the run's rounds, ``but`` those whose keys begin so."""
    for key in list(store.list(_place(run_id))):
        if not key.startswith(but) and not key.endswith((f".{_BEGUN}", f".{_OPENED}")):
            store.delete(key)


def _place(run_id: str) -> str:
    return f"derivatives/fedcore/secure/{run_id}/"
