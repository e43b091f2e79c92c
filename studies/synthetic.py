"""Synthetic subjects of the demo's hospitals: of what use they are, and whether they are copies.

    python -m studies synthetic

The plan ``plans/brain_tumour_synthetic.yaml`` is trained on the demo's scans, with each of the
generative models; each draws as many subjects of each class, and they are judged: by a classifier
that is trained on them and tested on real held-out subjects, beside one trained on the real ones;
by what they add to the smallest site's own; and by the test for memorisation. What is filled in for
a modality that a subject lacks is compared with the image that was hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedcore.baselines import Pooled
from fedcore.config import plan as plans
from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.config.task import Task
from fedcore.data.bids import BidsDataset
from fedcore.data.subjects import Example
from fedcore.evaluation.memorisation import memorisation
from fedcore.evaluation.metrics import collect, summarise
from fedcore.models.build import classifier
from fedcore.models.drawing import Generative
from fedcore.models.generate import ConditionalVae
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.training import local, nearest
from fedcore.training.nearest import to_nearest
from fedcore.training.state import load_params
from studies.federation import data_of, hospitals, macro_auc, trained
from studies.rows import Row, row

PLAN = Path(__file__).parents[1] / "plans" / "brain_tumour_synthetic.yaml"
COUNT = 300
SEEDS = range(3)
REAL = "real subjects"
STEPS = 450  # of a classifier, whatever it is trained on

GAN: Mapping[str, Any] = {
    "model": {
        "function": "fedcore.models.adversarial:conditional_gan",
        "arguments": {"shape": [20, 24, 20], "latent": 8},
    },
    "metrics": {"memorisation": 300},
    "training": {
        "epochs": 4, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.004,
        "learning_rates": {"encoder.*.outward.*": 0.1},
    },
}  # fmt: skip
"""What the shipped plan has as a comment, in the place of its own."""

Datasets = Mapping[str, Mapping[str, Any]]
"""Site → split → its subjects."""


def main() -> list[Row]:
    """Every figure of docs/synthetic.md."""
    plan, sites = plans.load(PLAN), hospitals()
    data = data_of(plan, sites)
    train, test = pooled(data, "train"), pooled(data, "test")
    alone = data[min(data, key=lambda site: len(data[site]["train"]))]["train"]
    few = of_use(alone, test, plan.task)
    found = [
        row("synthetic", "trained on all sites", REAL, "macro_auc",
            of_use(train, test, plan.task)),
        row("synthetic", "trained on smallest site", REAL, "macro_auc", few),
    ]  # fmt: skip
    for method, its in {"conditional VAE": plan, "conditional GAN": adversarial(plan)}.items():
        params = trained(its, sites)
        own, model = macro_auc(its, sites, params), generator(its, params)
        made = drawn(model, its.task, COUNT, seed=its.seed)
        more = of_use(Pooled([alone, made]), test, its.task)
        found += [
            row("synthetic", "the model itself", method, "macro_auc", [own]),
            row("synthetic", "trained on synthetic", method, "macro_auc",
                of_use(made, test, its.task)),
            *what_is_gained(method, few, more),
            *copies(method, made, train, test),
        ]  # fmt: skip
        if isinstance(model, ConditionalVae):
            found += filled_in(method, model, train, test)
    return found


def adversarial(plan: Plan) -> Plan:
    """The plan with the GAN."""
    fields = plan.model_dump(mode="json")
    fields["training"] = GAN["training"]
    fields["task"] |= {name: GAN[name] for name in ("model", "metrics")}
    return Plan.model_validate(fields)


def generator(plan: Plan, params: Params) -> Generative:
    """The plan's model with these params, to draw with."""
    module = build_model(plan)
    if not isinstance(module, Generative):
        raise TypeError(f"{plan.task.model.function} gives nothing that draws")
    load_params(module, params)
    return module.eval()


def pooled(data: Datasets, split: str) -> Pooled:
    return Pooled([data[site][split] for site in sorted(data)])


def drawn(model: Generative, task: Task, count: int, *, seed: int) -> BidsDataset:
    """So many synthetic subjects, of each class as many, with every modality."""
    classes = len(task.classes)
    images = nearest.drawn(model, count, classes, seed=seed)
    examples = [
        Example(str(i), {name: of[i] for name, of in images.items()}, i % classes, {})
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


def what_is_gained(method: str, few: Sequence[float], more: Sequence[float]) -> Iterator[Row]:
    """By the smallest site, seed by seed, of classifiers trained on ``more`` than its own few."""
    setting = "trained on smallest site and synthetic"
    gain = [of - without for of, without in zip(more, few, strict=True)]
    yield row("synthetic", setting, method, "macro_auc", more)
    yield row("synthetic", setting, method, "macro_auc above the site alone", gain, goal=0.0)


def copies(method: str, made: BidsDataset, train: Any, held_out: Any) -> Iterator[Row]:
    """Whether the synthetic subjects are nearer to those trained on than chance explains."""
    images, _ = batch(made)
    synthetic = {name: images[name] for name in made.modalities}
    found = memorisation(*(to_nearest(of, synthetic) for of in (train, held_out)))
    yield row("synthetic", "copies", method, "closeness", [found.closeness])
    yield row("synthetic", "copies", method, "closeness by chance, at least", [found.low])
    yield row("synthetic", "copies", method, "closeness by chance, at most", [found.high])
    yield row("synthetic", "copies", method, "p-value of memorisation", [found.p_value], goal=0.05)


def filled_in(method: str, model: ConditionalVae, train: Any, test: Any) -> Iterator[Row]:
    """By modality, the share of its variance, about the mean training image, that the others of the
    same subject explain."""
    known, _ = batch(train)
    hidden, _ = batch(test)
    for column, name in enumerate(model.modalities):
        rest = {**hidden, "present": hidden["present"].clone()}
        rest["present"][:, column] = 0
        usable = (hidden["present"][:, column] > 0.5) & (rest["present"].sum(dim=1) > 0)
        with torch.no_grad():
            guess = model.expected(rest)[name][usable]
        mean = known[name][known["present"][:, column] > 0.5].mean(dim=0)
        truth = hidden[name][usable]
        unexplained = (guess - truth).square().mean() / (mean - truth).square().mean()
        share = float(1 - unexplained)
        yield row("synthetic", f"filled in: {name}", method, "variance explained", [share])


def batch(subjects: Any) -> tuple[dict[str, Tensor], Tensor]:
    """All of them at once."""
    inputs, targets = subjects.collate([subjects[i] for i in range(len(subjects))])
    return inputs, targets
