"""The demo's four hospitals in one process: their scans made once, a plan trained in seconds.

What trains, codes and sums is the code of a real run (``Learner``, ``server.step``), and what
would travel is packed as it would be, to count its bytes. There is no store between them, no
process and no mask: so no plan that hides updates. Where a plan's model has fixed features, they
are computed once, and the same map is trained on them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedcore import params as flat
from fedcore.aggregation import scaffold
from fedcore.client.learner import Learner
from fedcore.client.personal import Personal
from fedcore.config import counting
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.config.section import Function
from fedcore.config.task import Task
from fedcore.data import bids
from fedcore.data.phantoms.cohort import SiteSpec, demo_federation
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.data.phantoms.writer import write_federation
from fedcore.data.site import SiteData
from fedcore.evaluation.metrics import merge
from fedcore.models.initial import build_model
from fedcore.models.private import FindingsClassifier, findings_classifier
from fedcore.params import Params
from fedcore.records import EvalOrder, Split, TrainOrder
from fedcore.server.step import ServerState, coded_change, initial_state, step
from fedcore.store import blobs
from fedcore.store.api import Store
from fedcore.store.exchange import order_digest, pack_reply
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.identity import FRAME
from fedcore.store.patient import PatientStore
from fedcore.training.state import get_params
from studies.jobs import WORKERS

FOLDER = Path(__file__).parents[1] / "fedcore-work" / "studies"
SEED = 20261124
"""The demo's: the same scans as `make demo` makes."""

EVERYBODY: Sequence[Split] = ("train", "validation", "test")


@dataclass
class Traffic:
    """Bytes of what travels to and from all sites, packed and signed, and what the params and
    updates alone would be as float32."""

    up: int = 0
    down: int = 0
    as_float32: int = 0


Own = Mapping[str, Store]
"""Where each site keeps what stays there, for plans with ``training.local`` or ``scaffold``."""


@functools.cache
def hospitals(
    folder: Path = FOLDER, seed: int = SEED, scale: float = 1.0, disease: str = "brain"
) -> Mapping[str, Store]:
    """The demo's sites: their files by name, made below ``folder`` if they are not there yet."""
    below = "" if disease == "brain" else f"{disease}-"
    specs = demo_federation(seed, scale, disease=DISEASES[disease])
    return made(specs, folder / f"{below}{seed}-{scale:g}", seed)


def made(specs: Sequence[SiteSpec], folder: Path, seed: int) -> Mapping[str, Store]:
    """The sites' files by name, made below ``folder`` if they are not there yet (minutes)."""
    stores = dict[str, Store]()
    for spec in specs:
        place = folder / spec.name
        place.mkdir(parents=True, exist_ok=True)
        stores[spec.name] = FilesystemStore(place)
    missing = [spec for spec in specs if not stores[spec.name].exists("made")]
    places = [(spec, stores[spec.name]) for spec in missing]
    write_federation(places, seed=seed, workers=WORKERS, on_subject=lambda: None)
    for spec in missing:
        stores[spec.name].put("made", b"")
    return {name: PatientStore(store, trusted=True) for name, store in stores.items()}


def dataset(site: SiteData, **arguments: Any) -> Mapping[str, Any]:
    """``fedcore.data.bids:dataset``, read once a process."""
    return _read(_Site(site), json.dumps(arguments, sort_keys=True))


def findings(site: SiteData, **arguments: Any) -> Mapping[str, TensorDataset]:
    """The features that ``findings_classifier`` has of each subject, computed once a process."""
    return _found(_Site(site), json.dumps(arguments, sort_keys=True))


def linear_map(task: Task) -> nn.Module:
    """What that classifier trains, under the same names."""
    return nn.Sequential(OrderedDict({"head": _whole(task).head}))


def _whole(task: Task) -> FindingsClassifier:
    read = task.dataset.arguments
    return findings_classifier(task, shape=read["shape"], spacing_mm=read["spacing_mm"])


class _Site:
    """A site by its files and by what the task reads of them, whatever else the plan says."""

    def __init__(self, data: SiteData) -> None:
        self.data = data
        self.reads = data.task.model_dump_json(exclude={"dataset", "model", "loss", "metrics"})

    def __hash__(self) -> int:
        return hash((id(self.data.files), self.reads))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Site):
            return NotImplemented
        return self.data.files is other.data.files and self.reads == other.reads


@functools.cache
def _read(site: _Site, arguments: str) -> Mapping[str, Any]:
    return bids.dataset(site.data, **json.loads(arguments))


@functools.cache
def _found(site: _Site, arguments: str) -> Mapping[str, TensorDataset]:
    whole, made = _whole(site.data.task), {}
    whole.head = nn.Identity()  # type: ignore[assignment]
    for split, subjects in _read(site, arguments).items():
        rows, labels = [], []
        for images, label in (subjects[number] for number in range(len(subjects))):
            present = torch.tensor([[float(name in images) for name in whole.modalities]])
            inputs = {name: image[None] for name, image in images.items()}
            with torch.no_grad():
                rows.append(whole({**inputs, "present": present})[0])
            labels.append(int(label))
        made[split] = TensorDataset(torch.stack(rows), torch.tensor(labels))
    return made


def trained(
    plan: Plan, sites: Mapping[str, Store], traffic: Traffic | None = None, own: Own | None = None
) -> Params:
    """The params that the plan's rounds come to, as the sites have them; of a plan whose noise is
    seeded, always the same.

    To ``traffic`` is added what travels: replies, and params or changes. ValueError for a plan
    that hides updates.
    """
    if plan.secure_aggregation.mode != "none":
        raise ValueError("here nothing is masked, so that noise by the sites would be left out")
    plan, traffic = _on_what_is_read(plan), traffic or Traffic()
    learners = {name: Learner(plan, sites[name], min_cell=5) for name in sorted(sites)}
    rests: dict[str, Params] = {name: {} for name in learners}
    state = initial_state(plan, get_params(build_model(plan)))
    for round_num in range(plan.rounds):
        updates = []
        for name, learner in learners.items():
            rest = rests[name] if plan.compression.feedback else None
            order = TrainOrder("study", name, round_num, round_num, plan.digest, "")
            params, control = scaffold.split(state.public)
            update, rests[name] = learner.train(
                order, order_digest(order), params, rest=rest, control=control or None,
                noise_key=hashlib.sha256(f"{plan.seed} {name} {round_num}".encode()).digest(),
                personal=_personal(own, name, order),
            )  # fmt: skip
            traffic.up += len(pack_reply(update, compress=plan.compression.compress).data) + FRAME
            traffic.as_float32 += flat.nbytes(flat.only(state.params, update.weights))
            traffic.as_float32 += flat.nbytes(state.params)
            updates.append((name, update))
        before = state
        state, _ = step(plan, before, updates)
        traffic.down += len(sites) * _told(plan, before, state)
    return state.shared


def _told(plan: Plan, before: ServerState, after: ServerState) -> int:
    """Bytes of what a site fetches to come from one round's params to the next one's."""
    if not plan.compression.down:
        return len(blobs.pack(after.public))
    change = coded_change(plan, before, after)
    return len(blobs.pack(change, compress=plan.compression.compress))


def macro_auc(
    plan: Plan, sites: Mapping[str, Store], params: Params, own: Own | None = None, *,
    min_cell: int = 5, splits: Sequence[Split] = ("test",),
) -> float:  # fmt: skip
    """On the subjects of these splits of all sites. DataError where a site has fewer than
    ``min_cell`` in one."""
    summary = summarised(plan, sites, params, own, min_cell=min_cell, splits=splits)
    return float(summary["overall"]["macro_auc"]["value"])


def summarised(
    plan: Plan, sites: Mapping[str, Store], params: Params, own: Own | None = None, *,
    min_cell: int = 5, splits: Sequence[Split] = ("test",),
) -> Mapping[str, Any]:  # fmt: skip
    """All figures of a model on the subjects of these splits, as the server sums them up."""
    plan, statistics = _on_what_is_read(plan), dict[str, Any]()
    for name, split in product(sorted(sites), splits):
        order = EvalOrder("study", name, 0, plan.rounds, plan.digest, "", split=split)
        learner = Learner(plan, sites[name], min_cell=min_cell)
        found = learner.evaluate(order, "", params, None, _personal(own, name, order))
        statistics = merge([statistics, found.statistics])
    return counting.summarise(plan.task, statistics)


def data_of(plan: Plan, sites: Mapping[str, Store]) -> dict[str, Mapping[str, Any]]:
    """Site → split → dataset, read once a process: what no server may see."""
    plan = _on_what_is_read(plan)
    return {
        name: resolve(plan.task.dataset)(SiteData(plan.task, sites[name], plan.purpose))
        for name in sorted(sites)
    }


def _personal(own: Own | None, site: str, order: TrainOrder | EvalOrder) -> Personal | None:
    return None if own is None else Personal(own[site], order)


def _on_what_is_read(plan: Plan) -> Plan:
    """The plan with a data set that is kept in memory, and no features computed twice."""
    task, arguments = plan.task, plan.task.dataset.arguments
    fixed = f"{findings_classifier.__module__}:{findings_classifier.__name__}"
    if task.dataset.function != f"{bids.__name__}:{bids.dataset.__name__}":
        return plan  # a study's own
    if task.model.function != fixed:
        changes = {"dataset": Function(function=f"{__name__}:dataset", arguments=arguments)}
    else:
        changes = {
            "dataset": Function(function=f"{__name__}:findings", arguments=arguments),
            "model": Function(function=f"{__name__}:linear_map"),
        }
    return plan.model_copy(update={"task": task.model_copy(update=changes)})
