"""Files → studies and their series, from headers alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from fedcore.imports import headers
from fedcore.imports.headers import Instance
from fedcore.imports.reasons import Reason, Unfit


@dataclass(frozen=True)
class Series:
    """The instances of one series, each once. ``head``: the header of the first of them."""

    uid: str
    instances: tuple[Instance, ...]
    head: Dataset = field(repr=False)

    @property
    def modality(self) -> str:
        """DICOM's two letters."""
        return self.instances[0].modality


@dataclass(frozen=True)
class Study:
    """One study of one patient."""

    patient: str
    uid: str
    series: tuple[Series, ...]

    def fingerprint(self, *, sizes: bool = True) -> str:
        """What is in it: changes when an instance comes, goes or is repaired."""
        lines = sorted(
            f"{instance.sop} {instance.bytes if sizes else ''}"
            for series in self.series
            for instance in series.instances
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Refused:
    """A file that belongs to no study, and why."""

    path: Path
    reason: str
    message: str


@dataclass(frozen=True)
class Index:
    """All that a source holds. ``foreign``: how many files are no DICOM and do not claim to be."""

    studies: tuple[Study, ...]
    refused: tuple[Refused, ...]
    foreign: int


def index(paths: Iterable[Path], on_file: Callable[[], None] = lambda: None) -> Index:
    """Read every header; nothing here raises for what a file holds."""
    found: dict[tuple[str, str], dict[str, dict[str, Instance]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    heads: dict[tuple[str, str, str], Dataset] = {}
    refused, foreign = [], 0
    for path in paths:
        try:
            read = headers.read(path)
        except Unfit as error:
            refused.append(Refused(path, error.reason, str(error)))
        else:
            if read is None:
                foreign += 1
            else:
                instance, head = read
                place = (instance.patient, instance.study)
                # The same instance in two folders is one.
                found[place][instance.series].setdefault(instance.sop, instance)
                heads.setdefault((*place, instance.series), head)
        on_file()
    studies = tuple(
        Study(patient, study, tuple(
            Series(uid, tuple(sorted(series[uid].values(), key=lambda i: (i.number, i.sop))),
                   heads[patient, study, uid])
            for uid in sorted(series)
        ))
        for (patient, study), series in sorted(found.items())
    )  # fmt: skip
    return Index(*_without_strangers(studies, refused), foreign)


def _without_strangers(
    studies: tuple[Study, ...], refused: list[Refused]
) -> tuple[tuple[Study, ...], tuple[Refused, ...]]:
    """A study of two patients is nobody's: whichever id is wrong, a subject would hold both."""
    owners = defaultdict(set)
    for study in studies:
        owners[study.uid].add(study.patient)
    for study in studies:
        if len(owners[study.uid]) > 1:
            refused += [
                Refused(i.path, str(Reason.TWO_PATIENTS), "its study holds two patient ids")
                for series in study.series
                for i in series.instances
            ]
    sound = tuple(study for study in studies if len(owners[study.uid]) == 1)
    return sound, tuple(refused)
