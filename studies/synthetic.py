"""Synthetic subjects of the demo's hospitals: of what use they are, and whether they are copies.

    python -m studies synthetic

The plan ``plans/brain_tumour_synthetic.yaml`` is trained on the demo's scans, with each of the
generative models; each draws as many subjects of each class, and they are judged: by a classifier
that is trained on them and tested on real held-out subjects, beside one trained on the real ones;
by what they add to the smallest site's own, mixed with them or before them; and by the test for
memorisation. What is filled in for a modality that a subject lacks is compared with the image that
was hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from studies.jobs import by_method
from studies.rows import Row, row

PLAN = Path(__file__).parents[1] / "plans" / "brain_tumour_synthetic.yaml"
COUNT = 300
SEEDS = range(3)
STEPS = 450  # of a classifier, whatever it is trained on
REAL = "real subjects"
PLANS = VAE, GAN = "VAE", "GAN"
ON_REAL, AUC = "tested on real subjects", "macro_auc"
ALL, FEW = "all sites' own", "the smallest site's own"
GAIN, P_VALUE = "macro_auc above the site's own alone", "p-value of memorisation"
GOALS = {GAIN: 0.0, P_VALUE: 0.05}

AS_COMMENT: Mapping[str, Any] = {
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

Figures = Mapping[tuple[str, str, str], float]
"""Setting, method and metric → value."""


def main() -> list[Row]:
    """Every figure of docs/synthetic.md; of each seed a generator and classifiers."""
    hospitals()  # before the processes begin, which would all make them
    return judged(by_method(score, (REAL, *PLANS), SEEDS))


def score(model: str, seed: int) -> Figures:
    """Of real subjects, or of a generator and of what it draws."""
    plan, sites = plan_of(model, seed), hospitals()
    data = data_of(plan, sites)
    train, test = pooled(data, "train"), pooled(data, "test")
    alone = data[min(data, key=lambda site: len(data[site]["train"]))]["train"]
    if model == REAL:
        trained_on = {ALL: [train], FEW: [alone]}
        return {(ON_REAL, name, AUC): of_use(test, plan, of) for name, of in trained_on.items()}
    params = trained(plan, sites)
    drawer = generator(plan, params)
    made = drawn(drawer, plan.task, COUNT, seed=seed)
    trained_on = {
        f"the {model}'s": [made],
        f"{FEW}, and the {model}'s": [Pooled([alone, made])],
        f"the {model}'s, then {FEW}": [made, alone],
    }
    return {
        (ON_REAL, f"the {model} itself", AUC): macro_auc(plan, sites, params),
        **{(ON_REAL, name, AUC): of_use(test, plan, of) for name, of in trained_on.items()},
        **copies(model, made, train, test),
        **(filled_in(model, drawer, train, test) if isinstance(drawer, ConditionalVae) else {}),
    }


def judged(found: Mapping[str, Sequence[Figures]]) -> list[Row]:
    """A row a figure, with its goal; and what made subjects add to the smallest site, seed by seed,
    beside its own alone."""
    rows = []
    few = [of[ON_REAL, FEW, AUC] for of in found[REAL]]
    for runs in found.values():
        for setting, method, metric in runs[0]:
            values = [of[setting, method, metric] for of in runs]
            rows.append(row("synthetic", setting, method, metric, values, goal=GOALS.get(metric)))
            if FEW in method and method != FEW:
                gain = [of - without for of, without in zip(values, few, strict=True)]
                rows.append(row("synthetic", setting, method, GAIN, gain, goal=GOALS[GAIN]))
    return rows


def plan_of(model: str, seed: int) -> Plan:
    """The shipped plan with this seed; for the GAN with what it has as a comment."""
    plan = plans.load(PLAN)
    plan = adversarial(plan) if model == GAN else plan
    return plan.model_copy(update={"seed": seed})


def adversarial(plan: Plan) -> Plan:
    """The plan with the GAN."""
    fields = plan.model_dump(mode="json")
    fields["training"] = AS_COMMENT["training"]
    fields["task"] |= {name: AS_COMMENT[name] for name in ("model", "metrics")}
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


def of_use(test: Any, plan: Plan, trained_on: Sequence[Any]) -> float:
    """Macro AUC on real subjects of a classifier trained on these, and then on those."""
    torch.manual_seed(plan.seed)
    module = classifier(plan.task, fusion="attention", modality_dropout=0.2)
    for subjects in trained_on:
        epochs = round(STEPS / len(trained_on) * 8 / len(subjects))
        training = Training(epochs=max(1, epochs), batch_size=8, learning_rate=0.002)
        result = local.train(module, subjects, cross_entropy, training, seed=plan.seed)
        load_params(module, result.params)
    scores, targets = local.predict(module, test, training)
    counts = collect(scores, targets, {}, num_classes=len(plan.task.classes))
    return float(summarise(counts, plan.task.classes)["overall"]["macro_auc"]["value"])


def copies(model: str, made: BidsDataset, train: Any, held_out: Any) -> Figures:
    """Whether the synthetic subjects are nearer to those trained on than chance explains."""
    images, _ = batch(made)
    synthetic = {name: images[name] for name in made.modalities}
    found = memorisation(*(to_nearest(of, synthetic) for of in (train, held_out)))
    return {
        ("copies", f"the {model}'s", "closeness"): found.closeness,
        ("copies", f"the {model}'s by chance, at least", "closeness"): found.low,
        ("copies", f"the {model}'s by chance, at most", "closeness"): found.high,
        ("copies", f"the {model}'s", P_VALUE): found.p_value,
    }


def filled_in(model: str, drawer: ConditionalVae, train: Any, test: Any) -> Figures:
    """By modality, the share of its variance, about the mean training image, that the others of the
    same subject explain."""
    known, _ = batch(train)
    hidden, _ = batch(test)
    found = {}
    for column, name in enumerate(drawer.modalities):
        rest = {**hidden, "present": hidden["present"].clone()}
        rest["present"][:, column] = 0
        usable = (hidden["present"][:, column] > 0.5) & (rest["present"].sum(dim=1) > 0)
        with torch.no_grad():
            guess = drawer.expected(rest)[name][usable]
        mean = known[name][known["present"][:, column] > 0.5].mean(dim=0)
        truth = hidden[name][usable]
        unexplained = (guess - truth).square().mean() / (mean - truth).square().mean()
        found[f"filled in by the {model}", name, "variance explained"] = float(1 - unexplained)
    return found


def batch(subjects: Any) -> tuple[dict[str, Tensor], Tensor]:
    """All of them at once."""
    inputs, targets = subjects.collate([subjects[i] for i in range(len(subjects))])
    return inputs, targets
