"""What a client must still know after a kill, in the site's own bucket, until the round is over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence

from fedcore import seeds
from fedcore.config.plan import Plan
from fedcore.errors import OrderRefused
from fedcore.privacy.secagg.secrets import context_of, derive
from fedcore.records import EvalOrder, TrainOrder
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

    One secret a round and its params, kept until the run is over: a client that was killed, and a
    secure round begun anew, release the same noisy update again and no second one. Other params
    have another secret, so no difference of two updates is without noise. With ``noise_source:
    seeded`` they follow from the plan. Raises OrderRefused for a secure round that was opened
    before and has no secret now: with other noise, its sum would be shown a second time.
    """
    if plan.privacy.noise_source == "seeded":
        place = (order.site, order.round_num, order.params_digest)
        return hashlib.sha256(str(seeds.derive(plan.seed, "subject", *place)).encode()).digest()
    key = f"{_training(order.run_id)}{order.round_num:05d}-{order.params_digest}"
    opened = f"{_place(order.run_id)}{order.round_num:05d}.{_OPENED}"
    if not store.exists(key) and store.exists(opened):
        raise OrderRefused(
            "this site helped to open the round's sum before, from other params or with noise that "
            "it has forgotten since: with other noise, it would be shown a second time"
        )
    secret = _remembered(store, key, lambda: os.urandom(32))
    return derive(secret, "noise", context_of(*order.names_update()))


def forget_run(store: Store, run_id: str) -> None:
    """Delete every secret of the run, which is over."""
    forget(store, run_id)
    for key in list(store.list(_training(run_id))):
        store.delete(key)


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


def _training(run_id: str) -> str:
    return f"derivatives/fedcore/training/{run_id}/"


def _place(run_id: str) -> str:
    return f"derivatives/fedcore/secure/{run_id}/"
