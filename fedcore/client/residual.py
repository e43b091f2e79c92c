"""What coding left of a site's updates, in the site's own bucket, until the run is over.

derivatives/fedcore/residual/<run>/<round>.<seq>.safetensors     what is left after that order
"""

from __future__ import annotations

from fedcore.params import Params
from fedcore.records import TrainOrder
from fedcore.store import blobs
from fedcore.store.api import Store
from fedcore.store.exchange import Exchange


class Residual:
    """Of one site in one run, at one order to train.

    What enters a round follows from what was sent before it, so a client that was killed finds the
    same again and sends the same. What leaves it is written before the update is, and counts once
    the update is in the exchange: an update that never left takes nothing with it.
    """

    def __init__(self, store: Store, exchange: Exchange, order: TrainOrder) -> None:
        self._store = store
        self._exchange = exchange
        self._order = order
        self._place = _place(order.run_id)

    def enter(self) -> Params:
        """What is left of the rounds before this one; nothing in the first."""
        key = self._entered()
        return {} if key is None else blobs.unpack(self._store.get(key))[0]

    def leave(self, rest: Params) -> None:
        """Keep what is left after this order. It is the same whenever it is worked out.

        What was there before that which entered will never be asked for again.
        """
        place, entered = (self._order.round_num, self._order.seq), self._entered()
        self._store.create(f"{self._place}{place[0]:05d}.{place[1]:06d}.safetensors",
                           blobs.pack(rest))  # fmt: skip
        for key in self._keys():
            if entered is not None and key < entered:
                self._store.delete(key)

    def _entered(self) -> str | None:
        """Where the residual of the last order of an earlier round lies that was answered."""
        order = self._order
        for key in reversed(self._keys()):
            round_num, seq = map(int, key.removeprefix(self._place).split(".")[:2])
            earlier = round_num < order.round_num
            if earlier and self._exchange.has_reply(order.site, order.run_id, seq):
                return key
        return None

    def _keys(self) -> list[str]:
        return sorted(self._store.list(self._place))


def forget(store: Store, run_id: str) -> None:
    """Delete what is left over of a run that has ended."""
    for key in list(store.list(_place(run_id))):
        store.delete(key)


def _place(run_id: str) -> str:
    return f"derivatives/fedcore/residual/{run_id}/"
