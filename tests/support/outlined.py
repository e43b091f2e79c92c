"""Subjects to outline, small enough to train whole federations on: a ball in noise, two modalities.

The lesion is bright on both; mri shows a like ball that is none. One site has no pet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import toy
from numpy.typing import NDArray

from fedcore.config.plan import Plan
from fedcore.config.policy import Policy
from fedcore.data.bids import BidsDataset, Example
from fedcore.data.site import SiteData
from fedcore.store.memory import MemoryStore

SIDE = 12
MODALITIES = ("mri", "pet")
SPLITS = {"train": 12, "validation": 8, "test": 8}


def stores() -> dict[str, MemoryStore]:
    """Every site's bucket: what tells its subjects from another's."""
    found = {site: MemoryStore() for site in toy.SITES}
    for site, store in found.items():
        store.put("site", site.encode())
    return found


def dataset(site: SiteData) -> dict[str, BidsDataset]:
    name = site.files.get("site").decode()
    rng = np.random.default_rng(sum(name.encode()))
    has = MODALITIES if name != "west" else ("mri",)
    attributes = tuple(site.task.groups)
    return {
        split: BidsDataset(MODALITIES, attributes, _examples(rng, size, has))
        for split, size in SPLITS.items()
    }


def _examples(rng: np.random.Generator, size: int, has: tuple[str, ...]) -> tuple[Example, ...]:
    return tuple(_example(rng, number, has) for number in range(size))


def _example(rng: np.random.Generator, number: int, has: tuple[str, ...]) -> Example:
    lesion = _ball(rng) if number % 4 else np.zeros((SIDE,) * 3, bool)  # every fourth is healthy
    looks = {"mri": lesion | _ball(rng, radius=1.2), "pet": lesion}
    images = {
        name: torch.tensor(rng.normal(0, 0.3, lesion.shape) + 2 * looks[name]).float()[None]
        for name in has
    }
    target = torch.tensor(lesion.astype(np.uint8))
    return Example(f"sub-{number}", images, target, {"sex": "FM"[number % 2]})


def _ball(rng: np.random.Generator, radius: float | None = None) -> NDArray[np.bool_]:
    centre = rng.uniform(3, SIDE - 4, (3, 1, 1, 1))
    away = np.linalg.norm(np.indices((SIDE,) * 3) - centre, axis=0)
    return np.asarray(away < (radius or rng.uniform(2.2, 3.2)))


def plan(**sections: Any) -> Plan:
    """A plan of the built-in segmenter, its loss and its metrics over these subjects."""
    window = {"kind": "pet", "path": "pet/*.nii.gz", "window": [0, 12]}
    task = {
        "classes": ["background", "lesion"],
        "groups": ["sex"],
        "modalities": {"mri": {"kind": "mr", "path": "anat/*.nii.gz"}, "pet": window},
        "target": {"structures": {"lesion": {"path": "anat/*_mask.nii.gz"}}},
        "model": {"function": "fedcore.models.segment:segmenter",
                  "arguments": {"width": 4, "scales": 2}},
        "dataset": {"function": "outlined:dataset"},
    }  # fmt: skip
    defaults = {
        "rounds": 3,
        "training": {"batch_size": 2, "epochs": 2, "learning_rate": 0.02},
        "aggregation": {"weights": "uniform"},
        "privacy": {"clip_norm": 100.0},
    }
    task |= sections.pop("task", {})
    return toy.plan(task=task, **{**defaults, **sections})


def policies() -> dict[str, Policy]:
    """Of every site: the plan above is allowed."""
    code = ["fedcore.*", "torch.nn.functional:*", "outlined:*"]
    return {site: toy.policy(site, modalities=list(MODALITIES), code=code) for site in toy.SITES}
