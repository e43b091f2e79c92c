"""A site's BIDS folder or bucket → the examples of a plan, and what was left out and why.

This is the built-in dataset function (``fedcore.data.bids:dataset``). Layout:
``participants.tsv`` and ``sub-*/[ses-*/]anat|ct|pet/*.nii.gz``, as in https://bids.neuroimaging.io;
of the eye, for which BIDS has no standard yet, ``oct/*.nii.gz`` and ``fundus/*.png`` or ``.jpg``.
Names of subjects and files stay in the objects made here; what may leave the site is the
``summary``, which holds counts. Of a segmentation (``task.target``) the outlines lie beside, below
``derivatives/``; who has none is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.data import participants
from fedcore.data.participants import SPLITS, split_of
from fedcore.data.site import SiteData
from fedcore.data.subjects import Example, LeftOut, Loaded, each
from fedcore.records import DataSummary, Split

Inputs = dict[str, Tensor]
FRACTIONS = (0.6, 0.15, 0.25)
"""Of the subjects: to train on, to validate and to test with."""


@dataclass(frozen=True)
class BidsDataset:
    """One split in memory. ``left_out_*``: (subject or key, reason); they stay at the site."""

    modalities: tuple[str, ...]
    attributes: tuple[str, ...]
    examples: tuple[Example, ...]
    left_out_subjects: tuple[LeftOut, ...] = ()
    left_out_files: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Inputs, int | Tensor]:
        """Modality → float32 image, only those the subject has; and the target."""
        example = self.examples[index]
        return dict(example.images), example.target

    def collate(self, items: Sequence[tuple[Inputs, int | Tensor]]) -> tuple[Inputs, Tensor]:
        """A batch: by modality (B, C, X, Y, Z) or of photos (B, 3, X, Y), zero where absent;
        "present" (B, M); classes (B,), in a segmentation (B, X, Y, Z).

        A modality that no item has is not among the inputs. The columns of "present" are all of
        the plan's modalities, in its order.
        """
        inputs = {}
        for name in self.modalities:
            images = [images.get(name) for images, _ in items]
            known = next((image for image in images if image is not None), None)
            if known is not None:
                blank = torch.zeros_like(known)
                inputs[name] = torch.stack([blank if i is None else i for i in images])
        inputs["present"] = torch.tensor(
            [[float(name in images) for name in self.modalities] for images, _ in items]
        )
        return inputs, torch.stack([torch.as_tensor(target) for _, target in items]).long()

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects' ids, by example."""
        return tuple(example.subject for example in self.examples)

    @property
    def targets(self) -> list[int | Tensor]:
        """The class of each example, in a segmentation of each of its voxels."""
        return [example.target for example in self.examples]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Attribute → group of each example."""
        return {name: [e.groups[name] for e in self.examples] for name in self.attributes}

    @property
    def summary(self) -> DataSummary:
        """Counts, which may leave the site. A file left out counts apart from its subject."""
        left_out = Counter(r for _, r in (*self.left_out_subjects, *self.left_out_files))
        present = Counter(name for example in self.examples for name in example.images)
        return DataSummary(len(self), dict(present), dict(sorted(left_out.items())))


def dataset(
    site: SiteData,
    *,
    shape: Sequence[int] | None = None,
    spacing_mm: float | None = None,
    label: str = "diagnosis",
    prefix: str = "",
    consent_column: str | None = "consent",
    synthetic: bool = False,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[Split, BidsDataset]:
    """The three splits of the subjects under ``prefix``, each image read once.

    Every image of a subject is resampled to ``shape`` cubic voxels of ``spacing_mm``, whose middle
    is that of the subject's first usable modality, and otherwise prepared as ``task.preprocessing``
    says; the two may be given there instead. ``label``: the column with a name out of
    ``task.classes``; a segmentation has no use for it. ``consent_column``: see
    ``fedcore.data.consent``; None says that consent is checked before data comes here, and is for
    the site to accept with the plan. ``synthetic``: whether subjects take part who do not exist
    (``participants.is_synthetic``); they are trained on, and nothing is ever judged by them.
    ``fractions``: see ``participants.split_of``.

    Raises ConfigError for arguments that do not fit, DataError if ``participants.tsv`` is missing
    or lacks a column. One bad file or subject is left out, with its reason, and never raises.
    """
    participants.check_fractions(fractions)
    loaded = list(
        each(
            site, shape=shape, spacing_mm=spacing_mm, label=label, prefix=prefix,
            consent_column=consent_column, synthetic=synthetic,
        )
    )  # fmt: skip
    by_split: dict[Split, list[Loaded]] = {split: [] for split in SPLITS}
    for one in loaded:
        nobody = one.example is not None and one.example.synthetic
        by_split["train" if nobody else split_of(one.name, fractions)].append(one)
    return {split: _gather(site.task, subjects) for split, subjects in by_split.items()}


def _gather(task: Task, subjects: Sequence[Loaded]) -> BidsDataset:
    return BidsDataset(
        modalities=tuple(task.modalities),
        attributes=tuple(task.groups),
        examples=tuple(s.example for s in subjects if s.example is not None),
        left_out_subjects=tuple((s.name, s.reason) for s in subjects if s.reason is not None),
        left_out_files=tuple(file for s in subjects for file in s.files),
    )
