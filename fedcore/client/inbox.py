"""What a client gets of the server's params: whole, and only as the order names them."""

from __future__ import annotations

import time

from fedcore.params import Params
from fedcore.store.exchange import Exchange


class Inbox:
    """Holds the params it got last: a round begins from those that were evaluated before it.

    What a call fetches is added to ``bytes_down`` and ``seconds.download`` of ``spent``.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._last: tuple[str, Params] = ("", {})

    def params(self, run_id: str, round_num: int, digest: str, spent: dict[str, float]) -> Params:
        """The params of that digest. Raises OrderRefused if those in the exchange are others."""
        if self._last[0] != digest:
            started = time.perf_counter()
            params, size = self._exchange.params(run_id, round_num, digest)
            self._last = (digest, params)
            _note(spent, size, started)
        return self._last[1]

    def onnx(self, run_id: str, digest: str, spent: dict[str, float]) -> bytes:
        """The export of that digest. Raises OrderRefused if it is another."""
        started = time.perf_counter()
        model = self._exchange.onnx(run_id, digest)
        _note(spent, len(model), started)
        return model


def _note(spent: dict[str, float], size: int, started: float) -> None:
    spent["bytes_down"] += size
    spent["seconds.download"] += time.perf_counter() - started
