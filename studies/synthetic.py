"""Synthetic subjects of the demo's hospitals: of what use they are, and whether they are copies.

    python -m studies.synthetic

The plan ``plans/brain_tumour_synthetic.yaml`` is trained on the demo's scans, its model draws as
many subjects of each class, and they are judged: by a classifier that is trained on them and
tested on real held-out subjects, beside one trained on the real ones; by what they add to the
smallest site's own; and by the test for memorisation. What is filled in for a modality that a
subject lacks is compared with the image that was hidden.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedcore.baselines import Pooled
from fedcore.config import plan as plans
from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.config.task import Task
from fedcore.data import bids
from fedcore.data.bids import BidsDataset
from fedcore.data.site import SiteData
from fedcore.data.subjects import Example
from fedcore.evaluation.memorisation import memorisation
from fedcore.evaluation.metrics import collect, summarise
from fedcore.models.build import classifier
from fedcore.models.generate import ConditionalVae
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.store.api import Store
from fedcore.training import local
from fedcore.training.state import load_params
from studies import results
from studies.federation import hospitals, macro_auc, trained

PLAN = Path(__file__).parents[1] / "plans" / "brain_tumour_synthetic.yaml"
COUNT = 300
SEEDS = range(3)
STEPS = 450  # of a classifier, whatever it is trained on

Datasets = Mapping[str, Mapping[str, BidsDataset]]
"""Site → split → its subjects."""


def main() -> dict[str, Any]:
    """Every figure of docs/synthetic.md."""
    plan, sites = plans.load(PLAN), hospitals()
    params = trained(plan, sites)
    model = generator(plan, params)
    data = read(plan, sites)
    train, test = pooled(data, "train"), pooled(data, "test")
    made = drawn(model, plan.task, COUNT, seed=plan.seed)
    smallest = min(data, key=lambda site: len(data[site]["train"]))
    alone = data[smallest]["train"]
    sets = {
        "real": train, "synthetic": made,
        "smallest site": alone, "smallest site and synthetic": Pooled([alone, made]),
    }  # fmt: skip
    found = {"macro_auc_of_the_generator": round(macro_auc(plan, sites, params), 4)}
    found["memorisation"] = asdict(judged(made, train, test))
    found["filled"] = filled(model, train, test)
    found["macro_auc"] = {name: of_use(of, test, plan.task) for name, of in sets.items()}
    for name, aucs in found["macro_auc"].items():
        print(f"trained on {name}: {statistics.fmean(aucs):.3f} ± {statistics.stdev(aucs):.3f}")
    print({name: found[name] for name in found if name != "macro_auc"})
    return found


def generator(plan: Plan, params: Params) -> ConditionalVae:
    """The plan's model with these params, to draw with."""
    module = build_model(plan)
    if not isinstance(module, ConditionalVae):
        raise TypeError(f"{plan.task.model.function} gives no ConditionalVae")
    load_params(module, params)
    return module.eval()


def read(plan: Plan, sites: Mapping[str, Store]) -> Datasets:
    """The real subjects, prepared as the plan says."""
    arguments = plan.task.dataset.arguments
    return {
        name: bids.dataset(SiteData(plan.task, files, plan.purpose), **arguments)
        for name, files in sites.items()
    }


def pooled(data: Datasets, split: str) -> Pooled:
    return Pooled([data[site][split] for site in sorted(data)])  # type: ignore[index]


def drawn(model: ConditionalVae, task: Task, count: int, *, seed: int) -> BidsDataset:
    """So many synthetic subjects, of each class as many, with every modality."""
    classes = torch.arange(count) % len(task.classes)
    with torch.no_grad():
        images = model.sample(classes, torch.Generator().manual_seed(seed))
    examples = [
        Example(str(i), {name: of[i] for name, of in images.items()}, int(classes[i]), {})
        for i in range(count)
    ]
    return BidsDataset(model.modalities, (), tuple(examples))


def of_use(subjects: Any, test: Any, task: Task, seeds: Sequence[int] = SEEDS) -> list[float]:
    """Macro AUC on real subjects of classifiers trained on these, one of each seed."""
    epochs = round(STEPS * 8 / len(subjects))
    training = Training(epochs=max(1, epochs), batch_size=8, learning_rate=0.002)
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        module = classifier(task, fusion="attention", modality_dropout=0.2)
        result = local.train(module, subjects, cross_entropy, training, seed=seed)
        load_params(module, result.params)
        scores, targets = local.predict(module, test, training)
        counts = collect(scores, targets, {}, num_classes=len(task.classes))
        found.append(summarise(counts, task.classes)["overall"]["macro_auc"]["value"])
    return [round(auc, 4) for auc in found]


def judged(made: Any, train: Any, held_out: Any) -> Any:
    """Whether the synthetic subjects ``made`` are nearer to those trained on."""
    synthetic, _ = batch(made)
    return memorisation(to_nearest(train, synthetic), to_nearest(held_out, synthetic))


def to_nearest(subjects: Any, synthetic: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """By subject, the distance to the nearest synthetic one.

    The mean squared difference over the modalities that the subject has, each in units of what it
    varies among the synthetic.
    """
    found = []
    for images, _ in (subjects[i] for i in range(len(subjects))):
        by_modality = [
            (synthetic[name] - image).square().flatten(1).mean(dim=1)
            / synthetic[name].var(dim=0).mean()
            for name, image in images.items()
        ]
        found.append(float(torch.stack(by_modality).mean(dim=0).min()))
    return np.array(found)


def filled(model: ConditionalVae, train: Any, test: Any) -> dict[str, float]:
    """Modality → the share of its variance, about the mean training image, that the others of the
    same subject explain."""
    known, _ = batch(train)
    hidden, _ = batch(test)
    found = {}
    for column, name in enumerate(model.modalities):
        rest = {**hidden, "present": hidden["present"].clone()}
        rest["present"][:, column] = 0
        usable = (hidden["present"][:, column] > 0.5) & (rest["present"].sum(dim=1) > 0)
        with torch.no_grad():
            guess = model.expected(rest)[name][usable]
        mean = known[name][known["present"][:, column] > 0.5].mean(dim=0)
        truth = hidden[name][usable]
        unexplained = (guess - truth).square().mean() / (mean - truth).square().mean()
        found[name] = round(float(1 - unexplained), 4)
    return found


def batch(subjects: Any) -> tuple[dict[str, Tensor], Tensor]:
    """All of them at once."""
    inputs, targets = subjects.collate([subjects[i] for i in range(len(subjects))])
    return inputs, targets


if __name__ == "__main__":
    results.write("synthetic", main())
