"""A federation of small made images in two modalities, where not every site has the second."""

from __future__ import annotations

from typing import Any

import torch
import toy
from torch import Tensor

from fedcore.config.plan import Plan
from fedcore.config.policy import Policy
from fedcore.data.site import SiteData
from fedcore.records import DataSummary
from fedcore.store.memory import MemoryStore

MODALITIES = ("mri", "pet")


class Subjects:
    """Label 1 has a bright cube somewhere in each image; every ``every``-th has a PET, 0 = none."""

    def __init__(self, seed: int, size: int, every: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(size) % 2
        self.images = 0.1 * torch.randn(size, 2, 1, 16, 16, 16, generator=generator)
        for number in range(size):
            x, y, z = torch.randint(0, 10, (3,), generator=generator).tolist()
            cube = self.images[number, :, :, x : x + 6, y : y + 6, z : z + 6]
            cube += 0.5 + 0.5 * self.labels[number]
        self.every = every
        have = len(range(0, size, every)) if every else 0
        self.summary = DataSummary(size, {"mri": size, "pet": have})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        has = MODALITIES if self.every and index % self.every == 0 else MODALITIES[:1]
        images = dict(zip(MODALITIES, self.images[index], strict=True))
        return {name: images[name] for name in has}, int(self.labels[index])

    def collate(self, items: list[tuple[dict[str, Tensor], int]]) -> tuple[Any, Tensor]:
        present = torch.tensor(
            [[float(name in images) for name in MODALITIES] for images, _ in items]
        )
        blank = torch.full((1, 16, 16, 16), float("nan"))
        inputs = {
            name: torch.stack([images.get(name, blank) for images, _ in items])
            for name in MODALITIES
            if any(name in images for images, _ in items)
        }
        return inputs | {"present": present}, torch.tensor([label for _, label in items])


def dataset(site: SiteData) -> dict[str, Subjects]:
    every = int(site.files.get("every.txt"))
    return {name: Subjects(n, 12, every) for n, name in enumerate(("train", "validation", "test"))}


def stores(**every: int) -> dict[str, MemoryStore]:
    """The sites' buckets; of each site, every how many-th subject has a PET."""
    made = {}
    for site in toy.SITES:
        made[site] = MemoryStore()
        made[site].put("every.txt", str(every.get(site, 0)).encode())
    return made


def plan(*, fusion: str = "sum", **sections: Any) -> Plan:
    """A plan for them: the built-in classifier, as small as it gets."""
    task = {
        "classes": ["no", "yes"],
        "modalities": {
            "mri": {"kind": "mr", "path": "mri"},
            "pet": {"kind": "pet", "path": "pet", "window": [0, 12]},
        },
        "model": {
            "function": "fedcore.models.build:classifier",
            "arguments": {"width": 4, "features": 8, "fusion": fusion},
        },
        "dataset": {"function": "imaged:dataset"},
    }
    training = {"batch_size": 4, "learning_rate": 0.01, **sections.pop("training", {})}
    return toy.plan(**{"task": task, "training": training, **sections})


def policies() -> dict[str, Policy]:
    """Those that allow it."""
    code = ["fedcore.*", "torch.nn.functional:*", "imaged:*"]
    return {site: toy.policy(site, modalities=list(MODALITIES), code=code) for site in toy.SITES}
