"""A step of DP-SGD, against Opacus' own loop on the same model and data.

The floor is what Opacus' users write: ``PrivacyEngine.make_private`` and a loop over its loader.
The measured work is ``fedcore.training.dpsgd.train`` whole: the copy of the module, the samples and
noise from a keyed stream, gradients of single subjects, clipping and the optimiser. The model is
the built-in one of the demo (3-D convolutions over four modalities, 25,000 params), the data are
random volumes on the demo's grid, of which some are missing. Both take the same steps, of all
subjects in one batch, in turns within one run and in one thread. CPU seconds, because the machine
may be shared.

    python benchmarks/dpsgd.py
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from typing import Any

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.data.bids import BidsDataset
from fedcore.data.subjects import Example
from fedcore.demo.plan import Choices, plan_of
from fedcore.models.build import classifier
from fedcore.models.mend import mended
from fedcore.training import dpsgd

SUBJECTS, STEPS, TURNS = 8, 3, 5
GOAL = 1.1

Row = dict[str, Any]


def main(results: list[Row]) -> list[Row]:
    """Append the seconds of a step, ours and Opacus', and their ratio."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, dataset = _model(), _dataset()
        _ours(module, dataset)  # what is loaded once
        _theirs(module, dataset)
        pairs = [(_ours(module, dataset), _theirs(module, dataset)) for _ in range(TURNS)]
    finally:
        torch.set_num_threads(threads)
    ours, theirs = (statistics.median(kind) for kind in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    results.append(_row(f"DP-SGD step, {SUBJECTS} subjects", ours, "s"))
    results.append(_row("the same by Opacus alone", theirs, "s"))
    results.append(_row("DP-SGD step / Opacus alone", ratio, "x", GOAL))
    return results


def _model() -> nn.Module:
    torch.manual_seed(0)
    return mended(classifier(plan_of(Choices()).task, width=8, features=32, fusion="attention"))


def _dataset() -> BidsDataset:
    """Every third subject lacks the last modality."""
    generator = torch.Generator().manual_seed(0)
    modalities = tuple(plan_of(Choices()).task.modalities)
    examples = [
        Example(
            f"sub-{index}",
            {name: torch.randn(1, 40, 48, 40, generator=generator)
             for name in modalities[: 3 if index % 3 == 0 else 4]},
            index % 4,
            {},
        )
        for index in range(SUBJECTS)
    ]  # fmt: skip
    return BidsDataset(modalities, (), tuple(examples))


def _ours(module: nn.Module, dataset: BidsDataset) -> float:
    """CPU seconds of a step."""
    privacy = SubjectPrivacy(clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps=STEPS)
    training = Training(batch_size=SUBJECTS, optimizer="sgd", learning_rate=0.1, device="cpu")
    started = time.process_time()
    dpsgd.train(module, dataset, cross_entropy, training, privacy, key=bytes(32), seed=0)
    return (time.process_time() - started) / STEPS


def _theirs(module: nn.Module, dataset: BidsDataset) -> float:
    module = mended(module)  # a copy
    started = time.process_time()
    loader: Any = DataLoader(dataset, batch_size=SUBJECTS, collate_fn=dataset.collate)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        private, optimizer, loader = PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            data_loader=loader,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
        for _ in range(STEPS):
            for inputs, target in loader:
                optimizer.zero_grad()
                cross_entropy(private(inputs), target).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return (time.process_time() - started) / STEPS


def _row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
    met = None if goal is None else bool(value <= goal)
    return {"name": name, "value": round(float(value), 3), "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    print(json.dumps(main([]), indent=1))
