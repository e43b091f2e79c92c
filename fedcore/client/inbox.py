"""What a client gets of the server's params: whole, once, and as the order names them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedcore.params import Params
from fedcore.store.exchange import Exchange


class Inbox:
    """Holds the params it got last: a round begins from those that were evaluated before it.

    ``spent``, wherever it is given: what it took is added there, to ``bytes_down`` and
    ``seconds.download``.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._last: tuple[str, Params] = ("", {})

    def params(self, run_id: str, round_num: int, digest: str, spent: dict[str, float]) -> Params:
        """The params of that digest. Raises OrderRefused if those in the exchange are others."""
        with _noted(spent) as sizes:
            if self._last[0] != digest:
                params, size = self._exchange.params(run_id, round_num, digest)
                self._last = (digest, params)
                sizes.append(size)
        return self._last[1]

    def onnx(self, run_id: str, digest: str, spent: dict[str, float]) -> bytes:
        """The export of that digest. Raises OrderRefused if it is another."""
        with _noted(spent) as sizes:
            model = self._exchange.onnx(run_id, digest)
            sizes.append(len(model))
        return model


@contextmanager
def _noted(spent: dict[str, float]) -> Iterator[list[int]]:
    started, sizes = time.perf_counter(), list[int]()
    yield sizes
    more = {"bytes_down": sum(sizes), "seconds.download": time.perf_counter() - started}
    for name, value in more.items():
        spent[name] = spent.get(name, 0.0) + value
