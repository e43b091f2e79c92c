"""What the federated model is compared with: each site alone, and all data in one place.

Only the embedded stack can do this, because only there may one process read every site's data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from fedcore import seeds
from fedcore.config import plan as plans
from fedcore.config.federation import Location
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.data.site import SiteData
from fedcore.evaluation.headline import headline
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.store.connect import Keys, open_store
from fedcore.training import augment, local
from fedcore.training.state import load_params


@dataclass(frozen=True)
class Pooled:
    """Several datasets as one, with the collate method of the first."""

    parts: Sequence[Any]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Any:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def collate(self, items: Sequence[Any]) -> Any:
        """As the parts do it."""
        return self.parts[0].collate(items)


@dataclass(frozen=True)
class Baselines:
    """Macro AUC, of a segmentation Dice, on the held-out subjects of all sites together."""

    single_site: Mapping[str, float | None]
    centralised: float | None


def train_baselines(
    plan: Plan,
    sites: Mapping[str, tuple[Location, Keys | None]],
    *,
    workers: int,
    on_model: Callable[[], None] = lambda: None,
) -> Baselines:
    """Train each site's own model and the centralised one, with the federated model's epochs.

    Every model starts from the plan's initial parameters and passes over its data
    ``rounds × epochs`` times, as a client's does over the whole run.
    """
    names = [None, *sorted(sites)]  # the centralised one first: it takes the longest
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        where = tuple(sorted(sites.items()))
        tasks = [pool.submit(_train_and_score, plan, where, name) for name in names]
        for _ in as_completed(tasks):
            on_model()
        scores = dict(zip(names, [task.result() for task in tasks], strict=True))
    centralised = scores.pop(None)
    return Baselines({str(name): auc for name, auc in scores.items()}, centralised)


Datasets = Mapping[str, Mapping[str, Any]]
"""Site → split → dataset."""

Sites = tuple[tuple[str, tuple[Location, Keys | None]], ...]


@functools.cache
def _datasets(plan_json: str, where: Sites) -> dict[str, Mapping[str, Any]]:
    """Site → split → dataset. Once per process, for all the models that it trains."""
    plan = plans.parse(plan_json)
    return {
        site: resolve(plan.task.dataset)(
            SiteData(plan.task, open_store(location, keys=keys), plan.purpose)
        )
        for site, (location, keys) in where
    }


def _train_and_score(plan: Plan, where: Sites, only: str | None) -> float | None:
    """The headline figure of a model trained at the site ``only``, or on all data if None."""
    data = _datasets(plan.canonical().decode(), where)
    return macro_auc(plan, trained_on(plan, data, [only] if only is not None else list(data)), data)


def trained_on(plan: Plan, data: Datasets, sites: Sequence[str]) -> Params:
    """Params of one model trained on the data of these sites in one place."""
    one_model = {"epochs": plan.training.epochs * plan.rounds, "local": [], "local_epochs": 0}
    return local.train(
        build_model(plan),
        Pooled([data[site]["train"] for site in sites]),
        resolve(plan.task.loss),
        plan.training.model_copy(update=one_model),
        seed=seeds.derive(plan.seed, "baseline", *sites),
        vary=augment.asked(plan.training, plan.task),
    ).params


def macro_auc(plan: Plan, params: Params, data: Datasets) -> float | None:
    """The headline figure, of a segmentation Dice."""
    summary = summarised(plan, params, data)
    return headline(summary["overall"]).value(summary)


def summarised(plan: Plan, params: Params, data: Datasets, *, min_cell: int = 5) -> dict[str, Any]:
    """All figures on the held-out subjects of all sites together."""
    module = build_model(plan)
    load_params(module, params)
    held_out = Pooled([splits["test"] for splits in data.values()])
    scores, targets = local.predict(module, held_out, plan.training, least=plan.task.least_voxels)
    metrics, classes = plan.task.metrics, plan.task.classes
    statistics = resolve(metrics.collect)(
        scores, targets, {}, num_classes=len(classes), min_cell=min_cell
    )
    found: dict[str, Any] = resolve(metrics.summarise)(statistics, classes)
    return found
