"""A site's BIDS folder or bucket → the examples of a plan, and what was left out and why.

This is the built-in dataset function (``fedcore.data.bids:dataset``). Layout:
``participants.tsv`` and ``sub-*/[ses-*/]anat|ct|pet/*.nii.gz``, as in https://bids.neuroimaging.io.
Names of subjects and files stay in the objects made here; what may leave the site is the
``summary``, which holds counts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.config.plan import Task
from fedcore.data import consent, layout, nifti, participants
from fedcore.data.participants import SPLITS, Participants, split_of
from fedcore.data.preparation import Preparation
from fedcore.data.site import Files, SiteData
from fedcore.errors import ConfigError, DataError, NotFound
from fedcore.records import DataSummary, Split

log = logging.getLogger("fedcore.data")

Inputs = dict[str, Tensor]
LeftOut = tuple[str, str]
"""A subject's id or a file's key, and the reason: a short category that may be counted."""

_READERS = 4  # threads: reading waits for the store, and unzipping lets other threads run


@dataclass(frozen=True)
class Example:
    """One subject: images (1, X, Y, Z) of the modalities it has, in the order of the plan."""

    subject: str
    images: Mapping[str, Tensor]
    target: int
    groups: Mapping[str, str]


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

    def __getitem__(self, index: int) -> tuple[Inputs, int]:
        """Modality → float32 image (1, X, Y, Z), only those the subject has; and the class."""
        example = self.examples[index]
        return dict(example.images), example.target

    def collate(self, items: Sequence[tuple[Inputs, int]]) -> tuple[Inputs, Tensor]:
        """A batch: by modality (B, 1, X, Y, Z), zero where absent; "present" (B, M); classes (B,).

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
        return inputs, torch.tensor([target for _, target in items], dtype=torch.int64)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects' ids, by example."""
        return tuple(example.subject for example in self.examples)

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
    shape: Sequence[int],
    spacing_mm: float,
    label: str = "diagnosis",
    prefix: str = "",
    consent_column: str | None = "consent",
    fractions: Sequence[float] = (0.6, 0.15, 0.25),
) -> dict[Split, BidsDataset]:
    """The three splits of the subjects under ``prefix``, each image read once.

    Every image of a subject is resampled to ``shape`` cubic voxels of ``spacing_mm``, whose middle
    is that of the subject's first usable modality. ``label``: the column with a name out of
    ``task.classes``. ``consent_column``: see ``fedcore.data.consent``; None says that consent is
    checked before data comes here, and is for the site to accept with the plan. ``fractions``: see
    ``participants.split_of``.

    Raises ConfigError for arguments that do not fit, DataError if ``participants.tsv`` is missing
    or lacks a column. One bad file or subject is left out, with its reason, and never raises.
    """
    _check(site, shape, spacing_mm)
    participants.check_fractions(fractions)
    root = prefix if prefix == "" or prefix.endswith("/") else f"{prefix}/"
    table = _table(site, root + "participants.tsv", label, consent_column)
    folders = layout.by_subject(site.files.list(f"{root}sub-"), root)

    def load(subject: str) -> _Subject:
        paths = folders.get(subject, [])
        reason = _unlisted(subject, table) or _unusable(
            table.rows[subject], paths, site, label, consent_column
        )
        if reason is not None:
            return _Subject(subject, reason=reason)
        images, files = _images(site, f"{root}{subject}/", paths, shape, spacing_mm)
        if not images:
            return _Subject(subject, reason="no usable image", files=files)
        row = table.rows[subject]
        target = site.task.classes.index(row[label])
        groups = participants.groups(row, site.task.groups)
        return _Subject(subject, Example(subject, images, target, groups), files=files)

    with ThreadPoolExecutor(_READERS) as pool:
        loaded = list(pool.map(load, sorted({*table.rows, *table.ambiguous, *folders})))
    return {
        split: _gather(site.task, [s for s in loaded if split_of(s.name, fractions) == split])
        for split in SPLITS
    }


@dataclass(frozen=True)
class _Subject:
    """What became of one subject: an example, or the reason for there being none."""

    name: str
    example: Example | None = None
    reason: str | None = None
    files: tuple[LeftOut, ...] = ()


def _gather(task: Task, subjects: Sequence[_Subject]) -> BidsDataset:
    return BidsDataset(
        modalities=tuple(task.modalities),
        attributes=tuple(task.groups),
        examples=tuple(s.example for s in subjects if s.example is not None),
        left_out_subjects=tuple((s.name, s.reason) for s in subjects if s.reason is not None),
        left_out_files=tuple(file for s in subjects for file in s.files),
    )


def _check(site: SiteData, shape: Sequence[int], spacing_mm: float) -> None:
    if not site.task.modalities:
        raise ConfigError("task.modalities is empty: say where each modality's images lie")
    if len(shape) != 3 or min(shape) < 1 or not spacing_mm > 0:
        raise ConfigError(
            f"dataset arguments shape: {list(shape)}, spacing_mm: {spacing_mm}; give three "
            "positive numbers of voxels and a positive edge length"
        )


def _table(site: SiteData, key: str, label: str, consent_column: str | None) -> Participants:
    try:
        data = site.files.get(key)
    except NotFound as error:
        raise DataError(
            f"there is no {key}: a BIDS dataset lists its subjects there; check the location in "
            "the federation file and the dataset argument prefix",
            reason="no participants.tsv",
        ) from error
    table = participants.read(data, source=key)
    table.require(label, "which holds the label")
    participants.require_groups(table, site.task.groups)
    if consent_column is None:
        log.warning("consent_column is null: consent is taken to be checked before data comes here")
    else:
        consent.require_column(table.columns, consent_column, source=key)
    return table


def _unlisted(subject: str, table: Participants) -> str | None:
    if subject in table.ambiguous:
        return "listed more than once in participants.tsv"
    return None if subject in table.rows else "not listed in participants.tsv"


def _unusable(
    row: Mapping[str, str],
    paths: Sequence[str],
    site: SiteData,
    label: str,
    consent_column: str | None,
) -> str | None:
    """Why a listed subject is left out before any of its images is read, or None."""
    if consent_column is not None:
        reason = consent.objection(row[consent_column], site.purpose)
        if reason is not None:
            return reason
    if not paths:
        return "no folder"
    known = participants.value(row, label)
    if known is None:
        return "no label"
    return None if known in site.task.classes else "label not among the plan's classes"


def _images(
    site: SiteData, folder: str, paths: Sequence[str], shape: Sequence[int], spacing_mm: float
) -> tuple[dict[str, Tensor], tuple[LeftOut, ...]]:
    """A subject's images on its one grid, and its files that were left out."""
    modalities = site.task.modalities
    chosen, surplus = layout.choose(paths, {name: m.path for name, m in modalities.items()})
    left_out = [(folder + path, reason) for path, reason in surplus]
    images: dict[str, Tensor] = {}
    preparation = Preparation(shape, spacing_mm)
    for name, path in chosen.items():
        key = folder + path
        try:
            image = preparation.image(nifti.read(_get(site.files, key)), name, modalities[name])
        except DataError as error:
            log.warning("left out %s: %s", key, error)
            left_out.append((key, error.reason))
        else:
            images[name] = torch.from_numpy(image)[None]
    return images, tuple(left_out)


def _get(files: Files, key: str) -> bytes:
    try:
        return files.get(key)
    except NotFound as error:
        raise DataError(str(error), reason="gone while reading") from error
