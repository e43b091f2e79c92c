"""Images around one mean a class and modality: what a generative model must learn, and no more.

As a data set for ``local.train``, and as the dataset function that a plan names (``means:plan``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
import toy
from torch import Tensor

from fedcore.config.plan import Plan
from fedcore.data.site import SiteData
from fedcore.errors import NotFound

NAMES = ("t1ce", "flair", "pet")
"""In the order of ``tests/models/conftest.py``'s task; a plan sorts them."""

SHAPE = (8, 10, 8)
CLASSES = 3
NOISE = 0.3


class Heads:
    """``size`` subjects, class after class; every fourth lacks PET, or all with ``pet=False``."""

    def __init__(self, size: int = 24, seed: int = 1, *, pet: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        means = {name: torch.randn(CLASSES, 1, *SHAPE, generator=generator) for name in NAMES}
        generator.manual_seed(seed)
        self.modalities = NAMES
        self.targets = [index % CLASSES for index in range(size)]
        self.rows = [
            {
                name: means[name][target] + NOISE * torch.randn(1, *SHAPE, generator=generator)
                for name in NAMES
                if name != "pet" or (pet and index % 4)
            }
            for index, target in enumerate(self.targets)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        return self.rows[index], self.targets[index]

    def collate(self, items: Any) -> tuple[dict[str, Tensor], Tensor]:
        images = {
            name: torch.stack([row.get(name, torch.zeros(1, *SHAPE)) for row, _ in items])
            for name in self.modalities
            if any(name in row for row, _ in items)
        }
        present = [[float(name in row) for name in self.modalities] for row, _ in items]
        targets = torch.tensor([target for _, target in items])
        return images | {"present": torch.tensor(present)}, targets


def dataset(site: SiteData) -> dict[str, Heads]:
    """A site's own, told apart by its table; without PET where there is a file ``no-pet``."""
    seed = int(hashlib.sha256(site.files.get("table.csv")).hexdigest()[:6], 16)
    try:
        pet = site.files.get("no-pet") is None
    except NotFound:
        pet = True
    sizes = {"train": 24, "validation": 12, "test": 12}
    made = {split: Heads(size, seed + i, pet=pet) for i, (split, size) in enumerate(sizes.items())}
    for heads in made.values():
        heads.modalities = tuple(site.task.modalities)
    return made


def plan(
    rounds: int = 3, model: str = "generate:conditional_vae", *,
    metrics: Mapping[str, Any] | None = None, **sections: Any,
) -> Plan:  # fmt: skip
    """The toy plan with a generative model on these heads."""
    mr = {"kind": "mr", "path": "anat/*.nii.gz"}
    task = {
        "classes": ["a", "b", "c"],
        "modalities": dict.fromkeys(NAMES, mr),
        "dataset": {"function": "means:dataset"},
        "model": {
            "function": f"fedcore.models.{model}",
            "arguments": {"shape": list(SHAPE), "latent": 4, "flip": False},
        },
        "loss": {"function": "torch.nn.functional:nll_loss"},
        "metrics": metrics or {},
    }
    training = {"epochs": 10, "batch_size": 8, "learning_rate": 0.03}
    fields = {"task": task, "training": training, "privacy": {"clip_norm": 100.0}, **sections}
    return toy.plan(rounds=rounds, **fields)


def launcher(store: Any, data: Any) -> toy.InlineLauncher:
    """Clients whose sites allow that plan."""
    code = ["fedcore.*", "torch.nn.functional:*", "means:*"]
    policies = {site: toy.policy(site, code=code, modalities=list(NAMES)) for site in toy.SITES}
    return toy.InlineLauncher(store, data, policies=policies)
