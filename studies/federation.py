"""The demo's four hospitals in one process: their scans made once, a plan trained in seconds.

What trains and what sums is the code of a real run (``Learner``, ``server.step``). There is no
store between them, no signature, no process and no mask: so no plan that hides updates.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcore.client.learner import Learner
from fedcore.config.functions import resolve
from fedcore.config.plan import Function, Plan
from fedcore.data.phantoms.cohort import demo_federation
from fedcore.data.phantoms.writer import write_federation
from fedcore.data.site import SiteData
from fedcore.evaluation.metrics import merge
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.records import ClientUpdate, EvalOrder, Statistics, TrainOrder
from fedcore.server.step import initial_state, step
from fedcore.store.api import Store
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.patient import PatientStore
from fedcore.training.state import get_params

FOLDER = Path(__file__).parents[1] / "fedcore-work" / "studies"
SEED = 20261124
"""The demo's: the same scans as `make demo` makes."""


@functools.cache
def hospitals(folder: Path = FOLDER, seed: int = SEED, scale: float = 1.0) -> Mapping[str, Store]:
    """The sites' files by name, made below ``folder`` if they are not there yet (minutes)."""
    specs, stores = demo_federation(seed, scale), dict[str, Store]()
    for spec in specs:
        place = folder / f"{seed}-{scale:g}" / spec.name
        place.mkdir(parents=True, exist_ok=True)
        stores[spec.name] = FilesystemStore(place)
    missing = [spec for spec in specs if not stores[spec.name].exists("made")]
    places = [(spec, stores[spec.name]) for spec in missing]
    write_federation(places, seed=seed, workers=1, on_subject=lambda: None)
    for spec in missing:
        stores[spec.name].put("made", b"")
    return {name: PatientStore(store, trusted=True) for name, store in stores.items()}


def dataset(site: SiteData, **arguments: Any) -> Mapping[str, Any]:
    """``fedcore.data.bids:dataset``, read once a process."""
    return _read(_Site(site), json.dumps(arguments, sort_keys=True))


class _Site:
    """A site by its files, whatever the plan."""

    def __init__(self, data: SiteData) -> None:
        self.data = data

    def __hash__(self) -> int:
        return id(self.data.files)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Site) and self.data.files is other.data.files


@functools.cache
def _read(site: _Site, arguments: str) -> Mapping[str, Any]:
    read: Mapping[str, Any] = resolve(_BIDS)(site.data, **json.loads(arguments))
    return read


_BIDS = "fedcore.data.bids:dataset"


def trained(plan: Plan, sites: Mapping[str, Store]) -> Params:
    """The params that the plan's rounds come to. ValueError for a plan that hides updates."""
    if plan.secure_aggregation.mode != "none":
        raise ValueError("here nothing is masked, so that noise by the sites would be left out")
    learners = {name: _learner(plan, sites[name]) for name in sorted(sites)}
    state = initial_state(plan, get_params(build_model(plan)))
    for round_num in range(plan.rounds):
        updates = [
            (name, _train(learner, plan, name, round_num, state.params))
            for name, learner in learners.items()
        ]
        state, _ = step(plan, state, updates)
    return state.params


def macro_auc(plan: Plan, sites: Mapping[str, Store], params: Params) -> float:
    """On the held-out subjects of all sites."""
    statistics: Statistics = {}
    for name in sorted(sites):
        order = EvalOrder("study", name, 0, plan.rounds, plan.digest, "", split="test")
        evaluation = _learner(plan, sites[name]).evaluate(order, "", params, None)
        statistics = merge([statistics, evaluation.statistics])
    summary = resolve(plan.task.metrics.summarise)(statistics, plan.task.classes)
    return float(summary["overall"]["macro_auc"]["value"])


def _train(learner: Learner, plan: Plan, site: str, round_num: int, params: Params) -> ClientUpdate:
    order = TrainOrder("study", site, round_num, round_num, plan.digest, "")
    return learner.train(order, "", params)


def _learner(plan: Plan, files: Store) -> Learner:
    found = plan.task.dataset
    if found.function == _BIDS:
        found = Function(function=f"{__name__}:dataset", arguments=found.arguments)
    task = plan.task.model_copy(update={"dataset": found})
    return Learner(plan.model_copy(update={"task": task}), files, min_cell=5)
