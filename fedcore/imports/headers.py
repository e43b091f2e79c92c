"""One DICOM file's header → what grouping, rules and geometry need. Never a pixel.

Whatever a damaged file makes the parser raise becomes Unfit here.
"""

from __future__ import annotations

import datetime
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.config import IGNORE, settings
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.rules import Traits

_NAMED_DICOM = (".dcm", ".ima", ".dicom", ".dic")
_OLDEST_YEAR = 1850  # of a birth, at that
_TRACERS = {
    "fluorodeoxyglucose": "FDG", "fdg": "FDG", "psma": "PSMA", "dota": "DOTATATE", "fet": "FET",
    "methionine": "MET", "florbetaben": "florbetaben", "florbetapir": "florbetapir",
}  # fmt: skip
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """Where a slice lies (DICOM's LPS mm): ``position`` (3,), ``orientation`` (6,) cosines."""

    position: Vector
    orientation: Vector


@dataclass(frozen=True)
class Instance:
    """One file. ``frames``: one, or those of a multi-frame image; () where it has no place."""

    path: Path
    bytes: int
    patient: str
    study: str
    series: str
    sop: str
    modality: str
    syntax: str
    number: int
    size: tuple[int, int]
    spacing: Vector
    frames: tuple[Frame, ...]


def read(path: Path) -> tuple[Instance, Dataset] | None:
    """The header in ``path``; None for a file that is no DICOM and does not claim to be.

    Raises Unfit for one that is damaged, or that lacks what names its patient and series.
    """
    with lenient():
        try:
            dataset = _dataset(path)
            return None if dataset is None else (_instance(path, dataset), dataset)
        except Unfit:
            raise
        except FileNotFoundError as error:
            raise Unfit(Reason.GONE, "there is no such file") from error
        except Exception as error:  # of whatever kind: the values are the file's
            raise Unfit(
                Reason.UNREADABLE, f"its header is damaged: {type(error).__name__}"
            ) from error


@contextmanager
def lenient() -> Iterator[None]:
    """pydicom takes values that the standard forbids, and is silent about them: scanners write
    them, and what is wrong with them is found here where it matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = logging.getLogger("pydicom")
        before = settings.reading_validation_mode, settings.writing_validation_mode, log.level
        settings.reading_validation_mode = settings.writing_validation_mode = IGNORE
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            settings.reading_validation_mode, settings.writing_validation_mode = before[:2]
            log.setLevel(before[2])


def traits(head: Dataset) -> Traits:
    """What the rules look at. A damaged value counts as absent."""
    words = [text(head, name) for name in ("SeriesDescription", "ProtocolName", "SequenceName")]
    words.append(tracer_of(head))
    return Traits(
        modality=text(head, "Modality"),
        description=" ".join(filter(None, words)),
        image_type="\\".join(map(str, several(head, "ImageType"))),
        agent=text(head, "ContrastBolusAgent"),
        te=number(head, "EchoTime") or _nested(head, "MREchoSequence", "EffectiveEchoTime"),
        tr=number(head, "RepetitionTime")
        or _nested(head, "MRTimingAndRelatedParametersSequence", "RepetitionTime"),
        ti=number(head, "InversionTime")
        or _nested(head, "MRModifierSequence", "InversionTimes"),
    )  # fmt: skip


def drug(head: Dataset) -> Dataset:
    """What was injected for a PET; empty where nothing is told."""
    return _first(head, "RadiopharmaceuticalInformationSequence") or Dataset()


def tracer_of(head: Dataset) -> str:
    """The tracer's usual short name, "" for one that is not known here: no free text."""
    told = text(drug(head), "Radiopharmaceutical").lower()
    return next((name for word, name in _TRACERS.items() if word in told), "")


def text(head: Dataset, keyword: str) -> str:
    """The value as text, "" where there is none."""
    try:
        value = head.get(keyword)
    except Exception:  # a damaged value raises whatever it likes
        return ""
    return "" if value is None else str(value).strip()


def several(head: Dataset, keyword: str) -> list[Any]:
    """The values, [] where there are none."""
    try:
        value = head.get(keyword)
    except Exception:  # a damaged value raises whatever it likes
        return []
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def number(head: Dataset, keyword: str) -> float | None:
    """The first value as a finite number, or None."""
    try:
        value = float(several(head, keyword)[0])
    except Exception:  # a damaged value raises whatever it likes
        return None
    return value if abs(value) < 1e30 else None  # NaN compares false


def date(head: Dataset, *keywords: str) -> datetime.date | None:
    """The first of the dates that is one; what lies before scanners were is a placeholder."""
    for keyword in keywords:
        try:
            found = datetime.datetime.strptime(text(head, keyword)[:8], "%Y%m%d").date()
        except ValueError:
            continue
        if found.year >= _OLDEST_YEAR:
            return found
    return None


def _dataset(path: Path) -> Dataset | None:
    claims = path.suffix.lower() in _NAMED_DICOM
    try:
        found = dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        if not claims and path.suffix:
            return None
        found = dcmread(path, stop_before_pixels=True, force=True)  # some have no preamble
        if "SOPClassUID" not in found:
            if not claims:
                return None
            raise Unfit(Reason.UNREADABLE, "it is not DICOM, whatever its name says") from None
    return None if text(found, "SOPClassUID") == MediaStorageDirectoryStorage else found


def _instance(path: Path, head: Dataset) -> Instance:
    patient = text(head, "PatientID")
    study, series = text(head, "StudyInstanceUID"), text(head, "SeriesInstanceUID")
    sop = text(head, "SOPInstanceUID")
    if not patient:
        raise Unfit(Reason.NO_PATIENT, "PatientID is empty")
    if not (study and series and sop):
        raise Unfit(
            Reason.NO_SERIES, "StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID is empty"
        )
    shared = _first(head, "SharedFunctionalGroupsSequence")
    groups = several(head, "PerFrameFunctionalGroupsSequence")
    return Instance(
        path=path,
        bytes=os.stat(path).st_size,
        patient=patient,
        study=study,
        series=series,
        sop=sop,
        modality=text(head, "Modality"),
        syntax=text(head.file_meta, "TransferSyntaxUID") if hasattr(head, "file_meta") else "",
        number=int(number(head, "InstanceNumber") or 0),
        size=(int(number(head, "Rows") or 0), int(number(head, "Columns") or 0)),
        spacing=_spacing(head, shared, groups),
        frames=tuple(_frame(group, shared) for group in groups) if groups else _single(head),
    )


def _single(head: Dataset) -> tuple[Frame, ...]:
    position = _vector(head, "ImagePositionPatient", 3)
    orientation = _vector(head, "ImageOrientationPatient", 6)
    many = (number(head, "NumberOfFrames") or 1) > 1
    return () if many or not (position and orientation) else (Frame(position, orientation),)


def _frame(group: Dataset, shared: Dataset | None) -> Frame:
    """A frame's place; what all frames share stands in ``shared``."""
    position = _group_vector(group, shared, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _group_vector(
        group, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6
    )
    if not (position and orientation):
        raise Unfit(Reason.NO_POSITION, "a frame has no position or orientation")
    return Frame(position, orientation)


def _spacing(head: Dataset, shared: Dataset | None, groups: list[Any]) -> Vector:
    if not groups:
        return _vector(head, "PixelSpacing", 2)
    return _group_vector(groups[0], shared, "PixelMeasuresSequence", "PixelSpacing", 2)


def _group_vector(
    group: Dataset, shared: Dataset | None, sequence: str, keyword: str, length: int
) -> Vector:
    for place in (group, shared):
        item = _first(place, sequence) if place is not None else None
        if item is not None:
            return _vector(item, keyword, length)
    return ()


def _vector(head: Dataset, keyword: str, length: int) -> Vector:
    """So many finite numbers, or ()."""
    try:
        values = tuple(float(value) for value in several(head, keyword))
    except Exception:  # a damaged value raises whatever it likes
        return ()
    return values if len(values) == length and all(abs(v) < 1e6 for v in values) else ()


def _first(head: Dataset, sequence: str) -> Dataset | None:
    items = several(head, sequence)
    return items[0] if items and isinstance(items[0], Dataset) else None


def _nested(head: Dataset, sequence: str, keyword: str) -> float | None:
    """A number out of the functional groups of a multi-frame image."""
    frames = several(head, "PerFrameFunctionalGroupsSequence")[:1]
    for group in (_first(head, "SharedFunctionalGroupsSequence"), *frames):
        item = _first(group, sequence) if isinstance(group, Dataset) else None
        if item is not None:
            return number(item, keyword)
    return None
