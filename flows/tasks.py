"""The tasks of a run: each gives one fedcore function a name in Prefect's UI.

Putting orders is none: every task makes a round longer, and this one would show nothing that the
wait for the replies does not. Nothing is cached or retried here: every function finds in the
exchange what an earlier attempt left, and the stores do their own short retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from fedcore.server import evaluation, release, replies, rounds
from fedcore.server.secure import evaluation as secure_evaluation
from fedcore.server.secure import rounds as secure

P = ParamSpec("P")
R = TypeVar("R")


def _named(name: str, function: Callable[P, R]) -> Callable[P, R]:
    run: Any = task(
        name=name, task_run_name=_in_its_round(name), cache_policy=NO_CACHE, persist_result=False
    )(function)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = run(*args, **kwargs)
        return result

    return call


def _in_its_round(name: str) -> Any:
    """``round 3: await replies``; a validation belongs to the round that it follows."""

    def name_of(parameters: Mapping[str, Any]) -> str:
        order = next(iter(parameters.get("orders", ())), None)
        split = parameters.get("split", getattr(order, "split", None))
        round_num = parameters.get("round_num", getattr(order, "round_num", None))
        if round_num is None or split == "test":
            return name
        return f"round {round_num - (split == 'validation')}: {name}"

    return name_of


await_replies = _named("await replies", replies.await_replies)
aggregate = _named("aggregate and commit", rounds.aggregate)
agree_on_keys = _named("agree on keys", secure.agree_on_keys)
reveal_sum = _named("reveal the sum and commit", secure.reveal_sum)
agree_on_keys_to_evaluate = _named("agree on keys", secure_evaluation.agree_on_keys)
reveal_statistics = _named("reveal the statistics", secure_evaluation.reveal_statistics)
evaluate = _named("add up statistics", evaluation.evaluate)
export = _named("export ONNX", release.export)
judge = _named("judge at the gate", release.judge)
register = _named("register the model", release.register)
