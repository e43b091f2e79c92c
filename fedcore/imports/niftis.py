"""Folders of NIfTI files → visits: one folder per patient, named by the patient id."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from fedcore.data import nifti
from fedcore.imports.masks import Grid, Mask, from_nifti
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.rules import Rules, Traits
from fedcore.imports.visits import MaskSource, Person, Scan, Visit, Volume

SUFFIXES = (".nii", ".nii.gz")
_MASK = re.compile(r"(?<![a-z])(mask|seg|segmentation|label|roi|dseg)(?![a-z])", re.I)


def visits(root: Path, paths: Iterable[Path], rules: Rules) -> list[Visit]:
    """A visit for every folder right below ``root``; files in ``root`` itself are nobody's."""
    by_patient = defaultdict(list)
    for path in sorted(paths):
        parts = path.relative_to(root).parts
        if len(parts) > 1:
            by_patient[parts[0]].append(path)
    return [_visit(patient, root, files, rules) for patient, files in sorted(by_patient.items())]


def strays(root: Path, paths: Iterable[Path]) -> list[Path]:
    """The files that lie in no patient's folder."""
    return [path for path in sorted(paths) if len(path.relative_to(root).parts) == 1]


def _visit(patient: str, root: Path, files: list[Path], rules: Rules) -> Visit:
    lines = [f"{path.relative_to(root)} {path.stat().st_size}" for path in files]
    masks = [path for path in files if _MASK.search(path.name)]
    scans = [path for path in files if path not in masks]
    return Visit(
        patient=patient,
        uid=f"nifti/{patient}",
        date=None,
        person=Person(),
        fingerprint=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        content="",
        scans=tuple(
            Scan(str(path.relative_to(root)), _traits(path.relative_to(root / patient)), (),
                 partial(_volume, path))
            for path in scans
        ),
        masks=tuple(_mask(path, root, scans, rules) for path in masks),
    )  # fmt: skip


def _traits(path: Path) -> Traits:
    return Traits("NIFTI", " ".join(path.parts))


def _volume(path: Path) -> Volume:
    volume = nifti.read(_bytes(path))
    return Volume(*volume, notes=("units as given",))


def _mask(path: Path, root: Path, scans: list[Path], rules: Rules) -> MaskSource:
    """A mask belongs to what lies in its folder, or to everything if nothing does."""
    near = [scan for scan in scans if scan.parent == path.parent] or scans
    on = frozenset(str(scan.relative_to(root)) for scan in near)
    named = rules.mask(" ".join(path.relative_to(root).parts[1:]))
    return MaskSource(str(path.relative_to(root)), on, partial(_drawn, path, named))


def _drawn(path: Path, named: str | None, grid: Grid) -> dict[str, Mask]:
    if named is None:
        raise Unfit(Reason.MASK_EMPTY, "no rule for masks matches its path")
    return {named: from_nifti(_bytes(path), grid)}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unfit(Reason.UNREADABLE, f"it cannot be read: {error.strerror}") from error
