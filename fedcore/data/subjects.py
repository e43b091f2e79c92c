"""A site's subjects in BIDS, one by one: an example of each, or why there is none.

What makes a dataset of them is ``fedcore.data.bids``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.data import consent, layout, participants, quarantine, verdicts
from fedcore.data.masks import Outlines
from fedcore.data.participants import Participants
from fedcore.data.preparation import Pipeline, Prepared
from fedcore.data.prepared import Folder, Kept
from fedcore.data.preparing import Preparer
from fedcore.data.site import Files, SiteData
from fedcore.data.workers import cpus
from fedcore.errors import ConfigError, DataError, NotFound

log = logging.getLogger("fedcore.data")

LeftOut = tuple[str, str]
"""A subject's id or a file's key, and the reason: a short category that may be counted."""

_READERS = 4  # threads: reading waits for the store, and unzipping lets other threads run


@dataclass(frozen=True)
class Example:
    """One subject: images (1, X, Y, Z), of a photo (3, X, Y), of the modalities it has, in the
    order of the plan. ``target``: its class; in a segmentation each voxel's (X, Y, Z), uint8.
    ``synthetic``: nobody, but drawn from a model."""

    subject: str
    images: Mapping[str, Tensor]
    target: int | Tensor
    groups: Mapping[str, str]
    synthetic: bool = False


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
    """The subjects under ``prefix``, sorted, one after the other. Raises as ``bids.dataset``.

    With ``task.preprocessing`` what is prepared is kept at the site and found there, and several
    processes prepare (``workers``; None = as many as there are CPUs for this process). Without it
    nothing is kept: what is then done takes little time. ``on_total``: is told how many there are.
    """
    if not site.task.modalities:
        raise ConfigError("task.modalities is empty: say where each modality's images lie")
    pipeline = Pipeline.of(site.task, shape, spacing_mm)
    root = prefix if prefix == "" or prefix.endswith("/") else f"{prefix}/"
    subjects = _Subjects.of(site, pipeline, root, label, consent_column, synthetic)
    names = subjects.names()
    on_total(len(names))
    keeps = site.task.preprocessing is not None
    kept = Kept(site.files, root, pipeline) if keeps and isinstance(site.files, Folder) else None
    workers = (workers or cpus()) if keeps else 1
    with (
        Preparer(pipeline, kept, workers=workers) as preparer,
        ThreadPoolExecutor(max(_READERS, workers + 1)) as pool,
    ):
        yield from pool.map(partial(subjects.load, preparer), names)


@dataclass(frozen=True)
class _Subjects:
    """What a site says of its subjects, and where their files lie.

    ``folders``: subject → paths below its folder. ``aside``: subject → what is in quarantine.
    ``outlines``: of a segmentation, which has no ``label``. ``synthetic``: whether those who do not
    exist are wanted.
    """

    site: SiteData
    pipeline: Pipeline
    root: str
    label: str | None
    consent_column: str | None
    synthetic: bool
    table: Participants
    folders: Mapping[str, Sequence[str]]
    aside: Mapping[str, Sequence[LeftOut]]
    verdicts: verdicts.Verdicts
    outlines: Outlines | None

    @classmethod
    def of(
        cls, site: SiteData, pipeline: Pipeline, root: str, label: str,
        consent_column: str | None, synthetic: bool,
    ) -> Self:  # fmt: skip
        """Read the lists, and no image."""
        files, target = site.files, site.task.target
        wanted = label if target is None else None
        return cls(
            site, pipeline, root, wanted, consent_column, synthetic,
            table=_table(site, root + "participants.tsv", wanted, consent_column),
            folders=layout.by_subject(files.list(f"{root}sub-"), root),
            aside=quarantine.read(files, root),
            verdicts={} if site.task.preprocessing is None else verdicts.read(files, root),
            outlines=None if target is None else Outlines.of(target, files, root),
        )  # fmt: skip

    def names(self) -> list[str]:
        """All that are heard of anywhere, sorted."""
        return sorted({*self.table.rows, *self.table.ambiguous, *self.folders, *self.aside})

    def load(self, preparer: Preparer, subject: str) -> Loaded:
        """The subject's images, prepared, or why there are none."""
        paths, aside = self.folders.get(subject, ()), self.aside.get(subject, ())
        if aside and not paths and subject not in self.table.rows:
            return Loaded(subject, reason=aside[0][1], files=tuple(aside[1:]))
        reason = self._objection(subject, paths)
        if reason is not None:
            return Loaded(subject, reason=reason, files=tuple(aside))
        keys, left_out = _chosen(self.site.task, f"{self.root}{subject}/", paths)
        files, gone = _read(self.site.files, keys)
        made = preparer(subject, files, self.verdicts.get(subject, {}))
        for name, (why, sentence) in made.left_out.items():
            log.warning("left out %s: %s", keys[name], sentence)
            gone.append((keys[name], why))
        told = partial(Loaded, subject, prepared=made, paths=keys)
        left_out = [*left_out, *gone, *aside]
        if not made.images:
            return told(reason="no usable image", files=tuple(left_out))
        try:
            target, unused = self._target(subject, made, keys)
        except DataError as error:
            log.warning("left out %s: %s", subject, error)
            return told(reason=error.reason, files=tuple(left_out))
        example = self._example(subject, made, target)
        return told(example, files=(*left_out, *unused))

    def _objection(self, subject: str, paths: Sequence[str]) -> str | None:
        """Why a subject is left out before any of its images is read, or None."""
        if subject in self.table.ambiguous:
            return "listed more than once in participants.tsv"
        if subject not in self.table.rows:
            return "not listed in participants.tsv"
        row = self.table.rows[subject]
        if participants.is_synthetic(row) and not self.synthetic:
            return "synthetic, which the plan does not ask for"
        if self.consent_column is not None:
            reason = consent.objection(row[self.consent_column], self.site.purpose)
            if reason is not None:
                return reason
        if not paths:
            return "no folder"
        if self.label is None:
            return None
        known = participants.value(row, self.label)
        if known is None:
            return "no label"
        return None if known in self.site.task.classes else "label not among the plan's classes"

    def _target(
        self, subject: str, made: Prepared, images: Mapping[str, str]
    ) -> tuple[int | Tensor, Sequence[LeftOut]]:
        """The subject's class, or each voxel's; and masks not used. Raises DataError."""
        if self.outlines is not None:
            found, unused = self.outlines.labels(subject, made, images)
            return torch.from_numpy(found), unused
        assert self.label is not None  # noqa: S101  # without outlines there is one
        return self.site.task.classes.index(self.table.rows[subject][self.label]), ()

    def _example(self, subject: str, made: Prepared, target: int | Tensor) -> Example:
        row, task = self.table.rows[subject], self.site.task
        return Example(
            subject,
            {name: torch.from_numpy(image) for name, image in self.pipeline.tensors(made).items()},
            target,
            participants.groups(row, task.groups),
            participants.is_synthetic(row),
        )


def _table(site: SiteData, key: str, label: str | None, consent_column: str | None) -> Participants:
    try:
        data = site.files.get(key)
    except NotFound as error:
        raise DataError(
            f"there is no {key}: a BIDS dataset lists its subjects there; check the location in "
            "the federation file and the dataset argument prefix",
            reason="no participants.tsv",
        ) from error
    table = participants.read(data, source=key)
    if label is not None:
        table.require(label, "which holds the label")
    participants.require_groups(table, site.task.groups)
    if consent_column is None:
        log.warning("consent_column is null: consent is taken to be checked before data comes here")
    else:
        consent.require_column(table.columns, consent_column, source=key)
    return table


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
