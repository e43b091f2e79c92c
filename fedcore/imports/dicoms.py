"""Studies of an index → visits."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from fedcore.imports import geometry, suv
from fedcore.imports.convert import convert
from fedcore.imports.deidentify import burned_in
from fedcore.imports.headers import (
    Instance,
    date,
    drug,
    lenient,
    number,
    several,
    text,
    tracer_of,
    traits,
)
from fedcore.imports.index import Series, Study
from fedcore.imports.masks import drawn, referenced
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.rules import Rules
from fedcore.imports.secret import Secret
from fedcore.imports.visits import MaskSource, Person, Scan, Visit, Volume

_MASKS = ("RTSTRUCT", "SEG")
_OLDEST = 89  # HIPAA: above it an age identifies
_SEX = {"F": "F", "M": "M", "O": "O"}


def visit(study: Study, rules: Rules, secret: Secret) -> Visit:
    """The study, ready to be read scan by scan."""
    with lenient():
        return _visit(study, rules, secret)


def _visit(study: Study, rules: Rules, secret: Secret) -> Visit:
    heads = [series.head for series in study.series]
    dated = (date(head, "StudyDate", "SeriesDate", "AcquisitionDate") for head in heads)
    when = next((day for day in dated if day is not None), None)
    return Visit(
        patient=study.patient,
        uid=study.uid,
        date=when,
        person=_person(heads, when),
        fingerprint=study.fingerprint(),
        content=study.fingerprint(sizes=False),
        scans=tuple(
            _scan(series, study, rules, secret)
            for series in study.series if series.modality not in _MASKS
        ),
        masks=tuple(
            MaskSource(series.uid, frozenset(referenced(series.head)),
                       partial(drawn, instance.path, rules=rules))
            for series in study.series if series.modality in _MASKS
            for instance in series.instances
        ),
    )  # fmt: skip


def _scan(series: Series, study: Study, rules: Rules, secret: Secret) -> Scan:
    return Scan(
        series.uid,
        traits(series.head),
        _rank(series),
        partial(_volume, series.instances, _maker(series.head), study.patient, rules, secret),
        burned_in(series.head),
    )


def _volume(
    instances: tuple[Instance, ...],
    maker: Mapping[str, Any],
    patient: str,
    rules: Rules,
    secret: Secret,
) -> Volume:
    found = geometry.check(instances, rules.min_slices)
    factor = suv.scale(_heads(instances)) if instances[0].modality == "PT" else None
    converted = convert(instances, found, patient, secret)
    voxels, notes = converted.voxels, converted.notes
    if factor is not None:
        voxels = (voxels * factor.factor).astype(np.float32)
        notes = (*notes, f"SUV: {factor.how}")
    return Volume(voxels, converted.affine, {**maker, **converted.described}, notes)


def _maker(head: Dataset) -> dict[str, Any]:
    """What the converter does not tell: a maker that it does not know, the tracer."""
    named = {"Manufacturer": "Manufacturer", "ManufacturersModelName": "ManufacturerModelName"}
    told: dict[str, Any] = {
        bids: value for bids, keyword in named.items() if (value := text(head, keyword))
    }
    dose, tracer = number(drug(head), "RadionuclideTotalDose"), tracer_of(head)
    if text(head, "Modality") == "PT" and dose:
        told["InjectedRadioactivity"] = round(dose / 1e6, 3)
    if tracer:
        told["TracerName"] = tracer
    return told


def _heads(instances: Iterable[Instance]) -> list[Dataset]:
    try:
        with lenient():
            return [
                dcmread(instance.path, stop_before_pixels=True, force=True)
                for instance in instances
            ]
    except Exception as error:  # it was read before, but a disk can fail
        raise Unfit(Reason.UNREADABLE, f"it cannot be parsed: {type(error).__name__}") from error


def _rank(series: Series) -> tuple[float, ...]:
    """Original before derived, corrected PET before uncorrected, finer, more voxels."""
    head = series.head
    words = [str(word).upper() for word in several(head, "ImageType")]
    corrected = "ATTN" in [str(word).upper() for word in several(head, "CorrectedImage")]
    slices = sum(len(instance.frames) for instance in series.instances)
    rows, columns = series.instances[0].size
    thickness = number(head, "SliceThickness") or 1.0
    return (float("ORIGINAL" in words), float(corrected), -round(thickness, 1),
            float(slices * rows * columns))  # fmt: skip


def _person(heads: list[Dataset], when: datetime.date | None) -> Person:
    """Of each the first that a series tells: what a mask was drawn with knows no age."""
    return Person(
        sex=_told(_SEX.get(text(head, "PatientSex").upper(), "n/a") for head in heads),
        age=_told(_age(head, when) for head in heads),
        scanner=_told(_scanner(head) for head in heads if text(head, "Modality") not in _MASKS),
    )


def _told(values: Iterable[str]) -> str:
    return next((value for value in values if value != "n/a"), "n/a")


def _scanner(head: Dataset) -> str:
    words = f"{text(head, 'Manufacturer')} {text(head, 'ManufacturerModelName')}".split()
    return " ".join(words) or "n/a"


def _age(head: Dataset, when: datetime.date | None) -> str:
    """Whole years at the study, 89 for 89 and above."""
    born = date(head, "PatientBirthDate")
    written = text(head, "PatientAge").upper()
    if born is not None and when is not None and born <= when:
        years = when.year - born.year - ((when.month, when.day) < (born.month, born.day))
    elif written[:3].isdigit() and written[3:] in ("Y", "M", "W", "D"):
        years = int(written[:3]) if written[3:] == "Y" else 0
    else:
        return "n/a"
    return str(min(years, _OLDEST)) if years <= 130 else "n/a"
