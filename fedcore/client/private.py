"""What a client must still know after a kill, in the site's own bucket."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence

from fedcore import seeds
from fedcore.compression.codec import Arrays
from fedcore.config.plan import Plan
from fedcore.errors import OrderRefused
from fedcore.privacy.secagg.secrets import context_of, derive
from fedcore.records import EvalOrder, TrainOrder
from fedcore.store import blobs
from fedcore.store.api import Store

_BEGUN, _OPENED = "order", "opened"
"""These hold no secret, and are kept."""


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
        forget(self._store, self._run_id, but=self._place)

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

    def remember(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is known as ``name``; what ``make`` gives is kept if there is nothing yet."""
        return _remembered(self._store, f"{self._place}.{name}", make)


def training_key(store: Store, plan: Plan, order: TrainOrder) -> bytes:
    """The 32 secret bytes that this site's noise in this round is drawn from.

    One secret an update (``TrainOrder.names_update``), which the budget ledger charges once: a
    client that was killed, and a secure round begun anew, release the same noisy update again. Any
    other update has another secret, so that no difference of two is without noise. With
    ``noise_source: seeded`` the bytes follow from the plan.

    They are never deleted: with other noise, the same update would be shown a second time and paid
    for once. Whoever reads the site's bucket gets nothing by them, for the scans lie there too.
    """
    if plan.privacy.noise_source == "seeded":
        number = seeds.derive(plan.seed, "noise", order.site, order.round_num)
        return hashlib.sha256(str(number).encode()).digest()
    secret = _remembered(store, _training(order), lambda: os.urandom(32))
    return derive(secret, "noise", context_of(*order.names_update()))


def hold_to(store: Store, plan: Plan, order: TrainOrder, update: Arrays) -> None:
    """Let one noise hide this update (as coded) and no other, ever.

    With the same noise the difference of two would have none: where the site's data changed since,
    or where a server took away a reply on which this update rests. Raises OrderRefused.
    """
    if plan.privacy.noise_source == "seeded":
        return
    digest = blobs.digest_of(update).encode()
    if _remembered(store, f"{_training(order)}.update", lambda: digest) != digest:
        raise OrderRefused(
            "this site made another update for this round before, from other data or another "
            "history; under the same noise, the difference of both would be bare"
        )


def forget(store: Store, run_id: str, *, but: str | None = None) -> None:
    """Delete every secret of the run's secure rounds, except those of the one in progress."""
    for key in list(store.list(_place(run_id))):
        current = but is not None and key.startswith(f"{but}.")
        if not current and not key.endswith((f".{_BEGUN}", f".{_OPENED}")):
            store.delete(key)


def _remembered(store: Store, key: str, make: Callable[[], bytes]) -> bytes:
    if not store.exists(key):
        store.create(key, make())
    return store.get(key)


def _training(order: TrainOrder) -> str:
    return f"derivatives/fedcore/training/{order.run_id}/{context_of(*order.names_update()).hex()}"


def _place(run_id: str) -> str:
    return f"derivatives/fedcore/secure/{run_id}/"
