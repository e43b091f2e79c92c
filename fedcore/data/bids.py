"""A site's BIDS folder or bucket → the examples of a plan, and what was left out and why.

This is the built-in dataset function (``fedcore.data.bids:dataset``). Layout:
``participants.tsv`` and ``sub-*/[ses-*/]anat|ct|pet/*.nii.gz``, as in https://bids.neuroimaging.io;
of the eye, for which BIDS has no standard yet, ``oct/*.nii.gz`` and ``fundus/*.png`` or ``.jpg``.
Names of subjects and files stay in the objects made here; what may leave the site is the
``summary``, which holds counts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.data import consent, layout, participants, quarantine, verdicts
from fedcore.data.participants import SPLITS, Participants, split_of
from fedcore.data.preparation import Pipeline, Prepared
from fedcore.data.prepared import Folder, Kept
from fedcore.data.preparing import Preparer
from fedcore.data.site import Files, SiteData
from fedcore.data.workers import cpus
from fedcore.errors import ConfigError, DataError, NotFound
from fedcore.records import DataSummary, Split

log = logging.getLogger("fedcore.data")

Inputs = dict[str, Tensor]
LeftOut = tuple[str, str]
"""A subject's id or a file's key, and the reason: a short category that may be counted."""

FRACTIONS = (0.6, 0.15, 0.25)
"""Of the subjects: to train on, to validate and to test with."""

_READERS = 4  # threads: reading waits for the store, and unzipping lets other threads run


@dataclass(frozen=True)
class Example:
    """One subject: images (1, X, Y, Z), of a photo (3, X, Y), of the modalities it has, in the
    order of the plan."""

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
        """Modality → float32 image, only those the subject has; and the class."""
        example = self.examples[index]
        return dict(example.images), example.target

    def collate(self, items: Sequence[tuple[Inputs, int]]) -> tuple[Inputs, Tensor]:
        """A batch: by modality (B, C, X, Y, Z) or of photos (B, 3, X, Y), zero where absent;
        "present" (B, M); classes (B,).

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


@dataclass(frozen=True)
class Loaded:
    """What became of one subject: an example, or the reason for there being none.

    ``files``: those left out. ``prepared``: None if no image was read. ``paths``: modality → key.
    """

    name: str
    example: Example | None = None
    reason: str | None = None
    files: tuple[LeftOut, ...] = ()
    prepared: Prepared | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False


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
    ``task.classes``. ``consent_column``: see ``fedcore.data.consent``; None says that consent is
    checked before data comes here, and is for the site to accept with the plan. ``synthetic``:
    whether subjects take part who do not exist (``participants.is_synthetic``); they are trained
    on, and nothing is ever judged by them. ``fractions``: see ``participants.split_of``.

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
        by_split["train" if one.synthetic else split_of(one.name, fractions)].append(one)
    return {split: _gather(site.task, subjects) for split, subjects in by_split.items()}


def each(
    site: SiteData,
    *,
    shape: Sequence[int] | None = None,
    spacing_mm: float | None = None,
    label: str = "diagnosis",
    prefix: str = "",
    consent_column: str | None = "consent",
    synthetic: bool = False,
    workers: int | None = None,
    on_total: Callable[[int], None] = lambda _: None,
) -> Iterator[Loaded]:
    """The subjects under ``prefix``, sorted, one after the other. Raises as ``dataset``.

    With ``task.preprocessing`` what is prepared is kept at the site and found there, and several
    processes prepare (``workers``; None = as many as there are CPUs for this process). Without it
    nothing is kept: what is then done takes little time. ``on_total``: is told how many there are.
    """
    if not site.task.modalities:
        raise ConfigError("task.modalities is empty: say where each modality's images lie")
    pipeline = Pipeline.of(site.task, shape, spacing_mm)
    root = prefix if prefix == "" or prefix.endswith("/") else f"{prefix}/"
    table = _table(site, root + "participants.tsv", label, consent_column)
    folders = layout.by_subject(site.files.list(f"{root}sub-"), root)
    kept, known = None, verdicts.Verdicts()
    if site.task.preprocessing is None:
        workers = 1
    else:
        known = verdicts.read(site.files, root)
        if isinstance(site.files, Folder):
            kept = Kept(site.files, root, pipeline)
    workers = workers or cpus()
    aside = quarantine.read(site.files, root)
    names = sorted({*table.rows, *table.ambiguous, *folders, *aside})
    on_total(len(names))

    def load(subject: str) -> Loaded:
        paths, set_aside = folders.get(subject, []), aside.get(subject, [])
        if set_aside and not paths and subject not in table.rows:
            return Loaded(subject, reason=set_aside[0][1], files=tuple(set_aside[1:]))
        reason = (
            _unlisted(subject, table)
            or _unwanted(table.rows[subject], synthetic)
            or _unusable(table.rows[subject], paths, site, label, consent_column)
        )
        if reason is not None:
            return Loaded(subject, reason=reason, files=tuple(set_aside))
        keys, left_out = _chosen(site.task, f"{root}{subject}/", paths)
        files, gone = _read(site.files, keys)
        made = preparer(subject, files, known.get(subject, {}))
        for name, (why, told) in made.left_out.items():
            log.warning("left out %s: %s", keys[name], told)
            gone.append((keys[name], why))
        files_left_out = (*left_out, *gone, *set_aside)
        if not made.images:
            reason = "no usable image"
            return Loaded(subject, None, reason, files_left_out, made, keys)
        row = table.rows[subject]
        example = Example(
            subject,
            {name: torch.from_numpy(image) for name, image in pipeline.tensors(made).items()},
            site.task.classes.index(row[label]),
            participants.groups(row, site.task.groups),
        )
        return Loaded(subject, example, None, files_left_out, made, keys,
                      participants.is_synthetic(row))  # fmt: skip

    with (
        Preparer(pipeline, kept, workers=workers) as preparer,
        ThreadPoolExecutor(max(_READERS, workers + 1)) as pool,
    ):
        yield from pool.map(load, names)


def _gather(task: Task, subjects: Sequence[Loaded]) -> BidsDataset:
    return BidsDataset(
        modalities=tuple(task.modalities),
        attributes=tuple(task.groups),
        examples=tuple(s.example for s in subjects if s.example is not None),
        left_out_subjects=tuple((s.name, s.reason) for s in subjects if s.reason is not None),
        left_out_files=tuple(file for s in subjects for file in s.files),
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


def _unwanted(row: Mapping[str, str], synthetic: bool) -> str | None:
    mere = participants.is_synthetic(row) and not synthetic
    return "synthetic, which the plan does not ask for" if mere else None


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


def _chosen(task: Task, folder: str, paths: Sequence[str]) -> tuple[dict[str, str], list[LeftOut]]:
    """A subject's keys by modality, and those that match but are not used."""
    chosen, surplus = layout.choose(paths, {name: m.path for name, m in task.modalities.items()})
    keys = {name: folder + path for name, path in chosen.items()}
    return keys, [(folder + path, reason) for path, reason in surplus]


def _read(files: Files, keys: Mapping[str, str]) -> tuple[dict[str, bytes], list[LeftOut]]:
    """Modality → bytes, and the keys that are gone."""
    found, gone = {}, []
    for name, key in keys.items():
        try:
            found[name] = files.get(key)
        except NotFound as error:
            log.warning("left out %s: %s", key, error)
            gone.append((key, "gone while reading"))
    return found, gone
