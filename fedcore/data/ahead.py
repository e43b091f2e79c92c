"""A plan's images prepared before a run, and what a human should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from fedcore.config.task import Task
from fedcore.data import album, bids, brain, intensities, nifti, participants, verdicts
from fedcore.data.preparation import Doubt, Pipeline, Verdict, prepare
from fedcore.data.prepared import Folder
from fedcore.data.preprocess import covering_grid, resample
from fedcore.data.site import SiteData
from fedcore.data.subjects import Loaded, each
from fedcore.errors import ConfigError, DataError

LANDMARKS_FROM = 10
"""Subjects below which landmarks are not shown: they would be somebody's."""

_BUILT_IN = "fedcore.data.bids:dataset"


@dataclass(frozen=True)
class Ahead:
    """``used`` of ``subjects`` have an image. ``left_out``: reason → how many files or subjects."""

    subjects: int
    used: int
    images: Mapping[str, int]
    left_out: Mapping[str, int]
    doubts: tuple[tuple[str, Doubt], ...]

    @property
    def undecided(self) -> int:
        """Doubtful images on which nobody has given a verdict."""
        return sum(doubt.verdict is None for _, doubt in self.doubts)


def prepare_ahead(
    task: Task,
    files: Folder,
    purpose: str,
    *,
    workers: int | None = None,
    on_total: Callable[[int], None] = lambda _: None,
    on_subject: Callable[[], None] = lambda: None,
    on_picture: Callable[[str, bytes], None] | None = None,
    every_picture: bool = False,
) -> Ahead:
    """Prepare all subjects whom the plan may use, keep that, and list the doubtful images.

    ``on_picture``: is given subject and PNG of each subject with a doubtful image, aligned as it
    would be if that were accepted (``every_picture``: of each subject that has an image).

    Raises ConfigError if the plan has no ``preprocessing``, or a dataset function of its own.
    """
    arguments = _arguments(task)
    pipeline = Pipeline.of(task, arguments.get("shape"), arguments.get("spacing_mm"))
    root = _root(arguments)
    known = verdicts.read(files, root)
    subjects, used = 0, 0
    images, left_out = Counter[str](), Counter[str]()
    doubts: list[tuple[str, Doubt]] = []
    site = SiteData(task, files, purpose)
    for found in each(site, **arguments, workers=workers, on_total=on_total):
        subjects += 1
        left_out.update(reason for _, reason in found.files)
        left_out.update([found.reason] if found.reason else [])
        if found.prepared is not None:
            used += bool(found.prepared.images)
            images.update(found.prepared.images.keys())
            doubts += [(found.name, doubt) for doubt in found.prepared.doubts]
            if on_picture and (found.prepared.doubts or every_picture):
                _show(pipeline, files, found, on_picture)
        on_subject()
    if doubts or known:
        table = verdicts.table(doubts, known)
        files.put(root + verdicts.TABLE, table)
    return Ahead(subjects, used, dict(images), dict(sorted(left_out.items())), tuple(doubts))


def learn_landmarks(
    task: Task, files: Folder, purpose: str, *, workers: int | None = None
) -> dict[str, tuple[float, ...]]:
    """MR modality → the mean landmarks of the site's training subjects, for a plan's ``landmarks``.

    Within the brain if the plan has ``brain_mask``, else within the foreground, as the plan will
    apply them. Raises DataError if fewer than LANDMARKS_FROM subjects have an image of a modality,
    ConfigError as ``prepare_ahead``.
    """
    arguments = _arguments(task)
    fractions = task.dataset.arguments.get("fractions", bids.FRACTIONS)
    keys: dict[str, list[str]] = {n: [] for n, m in task.modalities.items() if m.kind == "mr"}
    for found in each(SiteData(task, files, purpose), **arguments, workers=workers):
        if found.prepared is None or participants.split_of(found.name, fractions) != "train":
            continue
        for name in found.prepared.images:
            if name in keys:
                keys[name].append(found.paths[name])
    within_brain = task.preprocessing is not None and task.preprocessing.brain_mask
    learnt = {}
    for name, of in keys.items():
        if len(of) < LANDMARKS_FROM:
            raise DataError(
                f"{len(of)} usable training subjects with {name}; landmarks need {LANDMARKS_FROM}",
                reason="too few subjects",
            )
        learnt[name] = intensities.standard(_inside(files.get(key), within_brain) for key in of)
    return learnt


def _inside(data: bytes, within_brain: bool) -> intensities.FloatArray:
    """The intensities of an image's brain or foreground, in ascending order."""
    voxels, affine = nifti.read(data)
    image = resample(voxels, affine, covering_grid(voxels.shape, affine, brain.WORKING_MM))
    if not within_brain:
        return intensities.foreground(image)
    return np.sort(image[brain.brain(image, "mr", brain.WORKING_MM)])


def _show(
    pipeline: Pipeline,
    files: Folder,
    found: Loaded,
    on_picture: Callable[[str, bytes], None],
) -> None:
    assert found.prepared is not None  # noqa: S101  # the caller has looked
    shown = found.prepared
    if shown.doubts:
        accepted: Verdict = get_args(Verdict)[0]
        said = {doubt.modality: (doubt.pair, accepted) for doubt in shown.doubts}
        shown = prepare(pipeline, {n: files.get(key) for n, key in found.paths.items()}, said)
    if shown.images:
        on_picture(found.name, album.page(shown, found.name))


def _arguments(task: Task) -> dict[str, Any]:
    if task.dataset.function != _BUILT_IN:
        raise ConfigError(
            f"task.dataset: {task.dataset.function} prepares its images itself; this is for "
            f"{_BUILT_IN}"
        )
    if task.preprocessing is None:
        raise ConfigError(
            "the plan has no task.preprocessing, so nothing that is prepared is kept; add it, if "
            "only as preprocessing: {}, for the grid may stay among the dataset's arguments"
        )
    return {name: value for name, value in task.dataset.arguments.items() if name != "fractions"}


def _root(arguments: Mapping[str, Any]) -> str:
    prefix = str(arguments.get("prefix", ""))
    return prefix if prefix == "" or prefix.endswith("/") else f"{prefix}/"
