"""A federation small enough to run hundreds of times: a table per site, a linear model.

It comes in through the same door as anybody's own code: functions that a plan names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn
from torch.utils.data import TensorDataset

from fedcore.client.learner import Learner
from fedcore.client.loop import Client
from fedcore.client.secure import Partner
from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.config.policy import Policy
from fedcore.config.task import Task
from fedcore.data.site import SiteData
from fedcore.launch.api import ClientStatus, Launcher, WorkOrder
from fedcore.models.initial import build_model
from fedcore.records import (
    ClientUpdate,
    EvaluationRecord,
    Reply,
    RoundRecord,
    Sealed,
    Split,
    TrainOrder,
)
from fedcore.server import evaluation, orders, replies, rounds
from fedcore.server.evaluation import next_round
from fedcore.server.run import Run, open_run, record_of
from fedcore.server.secure import evaluation as secure_evaluation
from fedcore.server.secure import rounds as secure
from fedcore.server.step import ServerState, initial_state, step
from fedcore.store import envelope
from fedcore.store.api import Store
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SITES = ("east", "north", "west")


def model(task: Task) -> nn.Module:
    """Two modules, ``body`` and ``head``."""
    layers = {"body": nn.Linear(3, 4), "act": nn.Tanh(), "head": nn.Linear(4, len(task.classes))}
    from collections import OrderedDict

    return nn.Sequential(OrderedDict(layers))


def normalised(task: Task) -> nn.Module:
    """As ``model``, with batch normalisation between the two."""
    from collections import OrderedDict

    layers = {"body": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 2)}
    return nn.Sequential(OrderedDict(layers))


def dataset(site: SiteData) -> dict[str, TensorDataset]:
    """Rows of ``table.csv``: three features and a label; every fourth is held out."""
    rows = list(csv.reader(io.StringIO(site.files.get("table.csv").decode())))
    table = torch.tensor(np.array(rows, dtype=np.float32))
    features, labels = table[:, :3], table[:, 3].long()
    index = torch.arange(len(table))
    parts = {"train": index % 4 < 2, "validation": index % 4 == 2, "test": index % 4 == 3}
    return {name: TensorDataset(features[rows], labels[rows]) for name, rows in parts.items()}


class Grouped(TensorDataset):
    """Features, labels and a group of each example, as the attribute that fedcore looks for."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, groups: list[str]) -> None:
        super().__init__(features, labels)
        self.groups = {"sex": groups}


def grouped(site: SiteData) -> dict[str, Grouped]:
    """As ``dataset``, with a fifth column for the group: 0 is F, anything else M."""
    rows = list(csv.reader(io.StringIO(site.files.get("table.csv").decode())))
    members = ["M" if float(row[4]) else "F" for row in rows]
    return {
        name: Grouped(*part.tensors, [g for i, g in enumerate(members) if _PLACE[i % 4] == name])
        for name, part in dataset(site).items()
    }


_PLACE = ("train", "train", "validation", "test")
"""Of every four rows."""


def csv_of(rows: np.ndarray) -> bytes:
    """Rows of features, label and more, as a site's table."""
    text = io.StringIO()
    csv.writer(text).writerows(rows.tolist())
    return text.getvalue().encode()


def simulate(what: Plan, data: Mapping[str, Store], *, min_cell: int = 1) -> ServerState:
    """All rounds as functions: what trains and what sums, and nothing between them."""
    learners = {site: Learner(what, data[site], min_cell=min_cell) for site in sorted(data)}
    state = initial_state(what, get_params(build_model(what)))
    for round_num in range(what.rounds):
        arrivals = []
        for site, learner in learners.items():
            order = TrainOrder("run-1", site, round_num, round_num, what.digest, "")
            arrivals.append((site, learner.train(order, "", state.params)[0]))
        state, _ = step(what, state, arrivals)
    return state


def table(site: str, rows: int = 48) -> bytes:
    """A site's table: two shifted clouds, a little different everywhere."""
    rng = np.random.default_rng(sum(site.encode()))
    labels = np.arange(rows) // 4 % 2
    features = rng.normal(size=(rows, 3)) + 1.5 * labels[:, None] + 0.2 * len(site)
    text = io.StringIO()
    csv.writer(text).writerows([[*f, y] for f, y in zip(features, labels, strict=True)])
    return text.getvalue().encode()


def plan(**sections: Any) -> Plan:
    """A plan over the functions above."""
    fields = {
        "name": "toy",
        "purpose": "research",
        "seed": 7,
        "rounds": 2,
        "task": {
            "classes": ["no", "yes"],
            "model": {"function": "toy:model"},
            "dataset": {"function": "toy:dataset"},
        },
        "training": {"batch_size": 8, "learning_rate": 0.05},
        "cohort": {"min_clients": 2},
        "privacy": {"clip_norm": 1.0},
        "timeouts": {"round": 20, "idle": 5, "poll": 0.001},
        **sections,
    }
    return plans.Plan.model_validate(fields)


def policy(site: str, budget: Mapping[str, Any] | None = None, **allow: Any) -> Policy:
    """A policy that allows the toy plan."""
    return Policy.model_validate(
        {
            "site": site,
            "budget": budget,
            "server_public_key": envelope.public_text(KEY),
            "allow": {
                "purposes": ["research"],
                "modalities": [],
                "code": ["fedcore.*", "torch.nn.functional:*", "toy:*"],
                **allow,
            },
        }
    )


IDENTITIES = {
    site: Ed25519PrivateKey.from_private_bytes(bytes([number] * 32))
    for number, site in enumerate(SITES, start=1)
}
ACCEPTED = {site: [key.public_key()] for site, key in IDENTITIES.items()}


def partner(site: str) -> Partner:
    """A site's identity, and the others'."""
    return Partner(IDENTITIES[site], ACCEPTED)


def site_store(site: str) -> MemoryStore:
    """A site's bucket with its table in it."""
    store = MemoryStore()
    store.put("table.csv", table(site))
    return store


def site_stores() -> dict[str, MemoryStore]:
    """Every site's bucket."""
    return {site: site_store(site) for site in SITES}


def answer(client: Client, run_id: str, seq: int) -> Reply | None:
    """The first thing that the client says to the order; None if it says nothing."""
    return next(client.replies(run_id, seq), None)


class InlineLauncher:
    """Answers each order in this very process, as soon as the server asks for a client.

    ``policies``: of sites that have another than ``policy(site)``. ``absent`` sites never answer.
    ``drops``: site → the step before which it goes away for the rest of the round ("update" for
    its update), of a training or, with ``during``, an evaluation.
    """

    def __init__(
        self,
        store: Store,
        data: Mapping[str, Store],
        *,
        absent: frozenset[str] = frozenset(),
        drops: Mapping[str, str] | None = None,
        during: str = "train",
        policies: Mapping[str, Policy] | None = None,
    ) -> None:
        own = policies or {}
        self._clients = {
            site: Client(
                own.get(site) or policy(site), Exchange(store), where, partner=partner(site)
            )
            for site, where in data.items()
        }
        self._absent = absent
        self._drops = drops or {}
        self._during = during
        self._kinds: dict[str, str] = {}
        self._away: set[str] = set()
        self._orders: dict[str, tuple[str, int]] = {}
        self._replies: dict[str, Iterator[Reply | None]] = {}

    def ensure(self, order: WorkOrder) -> None:
        site, place = order.site, (order.run_id, order.seq)
        if site in self._absent:
            return
        if self._orders.get(site) != place:
            self._orders[site], self._kinds[site] = place, order.kind
            self._away.discard(site)
            self._replies[site] = self._clients[site].replies(*place)
        self._go_on(site)

    def poll(self, site: str) -> ClientStatus:
        gone = site in self._absent or site in self._away
        if not gone:
            self._go_on(site)
        return ClientStatus("failed" if gone else "running", "switched off", permanent=gone)

    def say_everything(self, site: str, run_id: str, seq: int) -> list[Reply | None]:
        """What the client says to one order, without the server."""
        return list(self._clients[site].replies(run_id, seq))

    def _go_on(self, site: str) -> None:
        """Until the client must wait for somebody, or has nothing more to say."""
        if site in self._away:
            return
        for reply in self._replies.get(site, ()):
            if reply is None:
                return
            update = isinstance(reply, ClientUpdate | Sealed)
            step = "update" if update else getattr(reply, "step", None)
            if (self._drops.get(site, ""), self._during) == (step, self._kinds[site]):
                self._away.add(site)
                return
            self._clients[site].send(reply)

    def cancel(self, site: str, run_id: str) -> None:
        """Nothing runs."""


def open_toy(store: Store, what: Plan, run_id: str = "run-1") -> Run:
    """Open the run of ``what`` among SITES."""
    run = open_run(
        Exchange(store), what, SITES, run_id, KEY,
        created="2026-01-01T00:00:00+00:00",
        initial=lambda: get_params(build_model(what)),
    )  # fmt: skip
    return replace(run, identities=ACCEPTED)


def train_round(run: Run, round_num: int, launcher: Launcher) -> RoundRecord:
    """Order, wait, aggregate, as the flow does."""
    asked = orders.train_orders(run, round_num)
    if run.plan.secure_aggregation.mode == "none":
        dropped = replies.await_replies(run, asked, launcher)
        return rounds.aggregate(run, round_num, asked, dropped)
    agreed = secure.agree_on_keys(run, round_num, asked, launcher)
    dropped = replies.await_replies(run, agreed.orders, launcher)
    return secure.reveal_sum(run, round_num, agreed, dropped)


def evaluate(run: Run, round_num: int, split: Split, launcher: Launcher) -> EvaluationRecord:
    """Order, wait, add up, as the flow does."""
    checks = orders.eval_orders(run, round_num, split)
    if not run.plan.secure_aggregation.statistics:
        absent = replies.await_replies(run, checks, launcher)
        return evaluation.evaluate(run, checks, absent)
    agreed = secure_evaluation.agree_on_keys(run, checks, launcher)
    absent = replies.await_replies(run, agreed.orders, launcher)
    return secure_evaluation.reveal_statistics(run, agreed, absent)


def play(run: Run, launcher: Launcher) -> tuple[list[RoundRecord], list[EvaluationRecord]]:
    """All rounds that are left, as the flow runs them, without Prefect."""
    records, evaluations = [], []
    for round_num in range(next_round(run), run.plan.rounds):
        record = record_of(run, round_num)
        if record is None:
            record = train_round(run, round_num, launcher)
        records.append(record)
        evaluations.append(evaluate(run, round_num + 1, "validation", launcher))
    return records, evaluations
