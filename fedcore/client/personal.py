"""What a site keeps to itself, in its own bucket: params (``training.local``), control variates.

They are written before the reply leaves and never sent, so an update is a function of the order,
of the site's data and of what the site kept in the round before: a client that was killed trains
from there again.
"""

from __future__ import annotations

from fedcore.params import Params
from fedcore.privacy.secagg.secrets import context_of
from fedcore.records import EvalOrder, TrainOrder
from fedcore.store import blobs
from fedcore.store.api import Store


class Personal:
    """What one site keeps of one run, as an order finds it: by the round that led there."""

    def __init__(self, store: Store, order: TrainOrder | EvalOrder) -> None:
        self._store = store
        self._round_num = order.round_num
        run = context_of(order.run_id, order.nonce, order.plan_digest).hex()
        self._place = f"derivatives/fedcore/personal/{order.run_id}/{run}/"

    def before(self) -> Params:
        """Of the last round before the order's in which this site trained; empty if it never did.

        The server's params of a round are those at its start, so an evaluation's fit these.
        """
        earlier = self._earlier()
        return blobs.unpack(self._store.get(earlier[-1]))[0] if earlier else {}

    def keep(self, params: Params) -> None:
        """Write what the order's round led to, once, and drop what no order can ask for again.

        The round that this one began from stays, for this one may have to be trained anew.
        """
        self._store.create(self._key(self._round_num), blobs.pack(params))
        for key in self._earlier()[:-1]:
            self._store.delete(key)

    def _earlier(self) -> list[str]:
        own = self._key(self._round_num)
        return [key for key in self._store.list(self._place) if key < own]

    def _key(self, round_num: int) -> str:
        return f"{self._place}{round_num:05d}.safetensors"
