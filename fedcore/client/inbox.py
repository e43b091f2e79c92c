"""What a client gets of the server's params: only as the order names them, in the fewest bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fedcore.compression import change
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn
from fedcore.config.plan import Plan
from fedcore.errors import PermanentError
from fedcore.models.initial import build_model
from fedcore.params import Params, digest, nbytes
from fedcore.store.exchange import Exchange
from fedcore.training.state import get_params

_FAR = 16
"""Rounds behind from which on the whole params are taken to be fewer bytes than the changes."""

_HEADER_BYTES = 1 << 18


@dataclass(frozen=True)
class _Held:
    """Params of one round of one run."""

    run_id: str = ""
    round_num: int = -1
    digest: str = ""
    params: Params | None = None


class Inbox:
    """Holds the params it got last: a round begins from those that were evaluated before it.

    What a call fetches is added to ``bytes_down`` and ``seconds.download`` of ``spent``.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._held = _Held()

    def params(
        self,
        run_id: str,
        round_num: int,
        wanted: str,
        spent: dict[str, float],
        plan: Plan | None = None,
    ) -> Params:
        """The params of the digest ``wanted``: those held, or what the changes since then make of
        them where the ``plan`` codes these, or else the whole params.

        Raises OrderRefused if those in the exchange are others.
        """
        if self._held.digest == wanted and self._held.params is not None:
            return self._held.params
        started = time.perf_counter()
        params = None
        if plan is not None and plan.compression.down:
            params = self._changed(run_id, round_num, wanted, plan, spent)
        if params is None:
            params, size = self._exchange.params(run_id, round_num, wanted)
            spent["bytes_down"] += size
        self._held = _Held(run_id, round_num, wanted, params)
        spent["seconds.download"] += time.perf_counter() - started
        return params

    def onnx(
        self,
        run_id: str,
        wanted: str,
        spent: dict[str, float],
        plan: Plan | None = None,
    ) -> bytes:
        """The export of that digest, of the params that are held. Raises OrderRefused if it is
        another."""
        started = time.perf_counter()
        known = self._held.params
        if plan is not None and plan.compression.compress and known is not None:
            model, size = self._exchange.onnx_beside(run_id, wanted, known)
        else:
            model = self._exchange.onnx(run_id, wanted)
            size = len(model)
        spent["bytes_down"] += size
        spent["seconds.download"] += time.perf_counter() - started
        return model

    def _changed(
        self, run_id: str, round_num: int, wanted: str, plan: Plan, spent: dict[str, float]
    ) -> Params | None:
        """The params from those that this client has; None where that does not lead to them.

        Whoever holds none of the run's has those of round 0: they follow from the plan.
        """
        held = self._held
        if held.run_id != run_id or held.round_num > round_num or held.params is None:
            begin = get_params(build_model(plan))
            shared = {name: a for name, a in begin.items() if not plan.training.stays(name)}
            held = _Held(run_id, 0, "", shared)
        params = held.params
        if params is None or round_num - held.round_num > _FAR:
            return None
        limit = nbytes(params) + _HEADER_BYTES
        for before in range(held.round_num, round_num):
            try:
                told, size = self._exchange.change(run_id, before + 1, limit)
                spent["bytes_down"] += size
                codec = chain(**plan.coding("down", before))
                params = change.apply(codec, params, told, Turn(plan.seed, before, change.SENDER))
            except PermanentError:  # gone, or not what was put there: the whole params tell
                return None
        if digest(params) != wanted:
            return None
        for array in params.values():
            array.flags.writeable = False
        return params
