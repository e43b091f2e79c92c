"""What a federated round costs beyond its training, and what starting the stack costs.

The measured round is the real one: Prefect flow, S3, four client processes, orders, aggregation,
record, evaluation, table. The bare one trains and evaluates the same four sites on the same data
with the same code, in two processes that are handed params and hand back params, averaged with
NumPy: no store, no flow, no signature, nothing written down. Both are taken in turn, three times,
since a machine's speed changes within minutes: medians over the warm rounds of each turn, and the
median of the three differences.
"""

from __future__ import annotations

import functools
import logging
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from fedcore import demo, seeds
from fedcore.config import plan as plans
from fedcore.config.federation import Location
from fedcore.config.functions import resolve
from fedcore.data.site import SiteData
from fedcore.demo.plan import Choices
from fedcore.models.initial import build_model
from fedcore.server.connect import new_run_id
from fedcore.settings import use_prefect
from fedcore.store.connect import Keys, open_store
from fedcore.training import local
from fedcore.training.state import get_params, load_params

ROUNDS = 8
TURNS = 3
GOAL_SECONDS = 0.5

Row = dict[str, Any]
Place = tuple[Location, Keys]


def main(results: list[Row]) -> list[Row]:
    """Append the rows of (b), the round's overhead, and (c), start-up by part."""
    with (
        tempfile.TemporaryDirectory() as folder,
        demo.prepare(
            Path(folder),
            choices=Choices(rounds=ROUNDS),
            scale=0.3,
            on_stage=demo.silent,
        ) as ready,
    ):
        for part, seconds in ready.stack.seconds.items():
            results.append(_row(f"start-up of {part}", seconds))
        turns = [(_federated_rounds(ready), _bare_rounds(ready)) for _ in range(TURNS)]
    federated, bare = (statistics.median(kind) for kind in zip(*turns, strict=True))
    overhead = statistics.median(whole - part for whole, part in turns)
    results.append(_row("federated round, 4 sites (median)", federated))
    results.append(_row("bare round, two processes (median)", bare))
    results.append(_row("overhead of a federated round", overhead, GOAL_SECONDS))
    return results


class _Clock(logging.Handler):
    """Notes when each round ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", {}).get("event") == "round":
            self.ends.append(time.perf_counter())


def _federated_rounds(ready: demo.Ready) -> float:
    use_prefect(ready.stack.prefect_api_url, ready.stack.prefect_home)
    from flows.train import train_here

    clock = _Clock()
    log = logging.getLogger("fedcore.run")
    log.setLevel(logging.INFO)
    log.addHandler(clock)
    train_here(ready.plan, ready.federation, new_run_id(plans.load(ready.plan)))
    log.removeHandler(clock)
    return statistics.median(np.diff(clock.ends))


def _bare_rounds(ready: demo.Ready) -> float:
    plan = plans.load(ready.plan)
    places: dict[str, Place] = {}
    for spec in ready.specs:
        credential = ready.stack.credential(spec.name)
        bucket = ready.stack.site_bucket(spec.name)
        places[spec.name] = (
            Location(bucket=bucket, endpoint=ready.stack.s3_endpoint),
            Keys(credential.access_key, credential.secret_key),
        )
    params = get_params(build_model(plan))
    seconds = []
    halves = [sorted(places)[:2], sorted(places)[2:]]
    context = get_context("spawn")
    workers = [ProcessPoolExecutor(1, mp_context=context) for _ in halves]
    for round_num in range(ROUNDS):
        started = time.perf_counter()
        tasks = [
            worker.submit(_train, plan.canonical().decode(), name, places[name], round_num, params)
            for worker, names in zip(workers, halves, strict=True)
            for name in names
        ]
        trained = [task.result() for task in tasks]
        params = {name: np.mean([t[name] for t in trained], axis=0) for name in params}
        checks = [
            worker.submit(_check, plan.canonical().decode(), places[name], params)
            for worker, names in zip(workers, halves, strict=True)
            for name in names
        ]
        for check in checks:
            check.result()
        seconds.append(time.perf_counter() - started)
    for worker in workers:
        worker.shutdown()
    return statistics.median(seconds[1:])  # the first one loads the data


@functools.cache
def _site(plan_json: str, place: Place) -> tuple[plans.Plan, Any, Any]:
    plan = plans.parse(plan_json)
    location, keys = place
    files = open_store(location, keys=keys)
    data = resolve(plan.task.dataset)(SiteData(plan.task, files, plan.purpose))
    return plan, data, build_model(plan)


def _train(plan_json: str, name: str, place: Place, round_num: int, params: Any) -> Any:
    plan, data, module = _site(plan_json, place)
    load_params(module, params)
    seed = seeds.derive(plan.seed, "train", name, round_num)
    loss = resolve(plan.task.loss)
    return local.train(module, data["train"], loss, plan.training, seed=seed).params


def _check(plan_json: str, place: Place, params: Any) -> None:
    plan, data, module = _site(plan_json, place)
    load_params(module, params)
    local.predict(module, data["validation"], plan.training)


def _row(name: str, value: float, goal: float | None = None) -> Row:
    met = None if goal is None else bool(value <= goal)
    return {"name": name, "value": round(float(value), 3), "unit": "s", "goal": goal, "met": met}
