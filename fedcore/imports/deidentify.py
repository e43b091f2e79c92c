"""What leaves of a DICOM header: PS3.15's basic profile, with this site's dates and UIDs.

The actions are those of dicom-anonymizer, for the edition 2026c of the profile's table E.1-1. They
are applied at every depth here; the library itself stops at the top. On top of the basic profile:
UIDs are the site's HMAC of the old ones, dates are shifted (option "retain longitudinal temporal
information, modified dates"), overlays, curves and private attributes are removed.

The converter only sees what has gone through here, so that nothing else can end in an image's
header or sidecar.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from fedcore.imports.headers import date, lenient, several, text
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.secret import Secret

_EDITION = "dicomfields_2026c"
_REPEATING = (0x5000, 0x6000)  # curves and overlays, by group & 0xff00
_STRAY = (0x0000, 0x0002)  # of a network message or a file's head, in neither of which we are
_STANDARD_UID = "1.2.840.10008."
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Action = Callable[[Dataset, tuple[int, int]], None]


def deidentify(dataset: Dataset, patient: str, secret: Secret) -> None:
    """Change ``dataset``, at every depth, so that it does not tell who the patient is."""
    for element in list(dataset):
        tag = element.tag
        if tag.is_private or tag.group in _STRAY or tag.group & 0xFF00 in _REPEATING:
            del dataset[tag]
        elif element.VR == "SQ":
            _act(dataset, element, patient, secret)
            for item in dataset[tag].value or () if tag in dataset else ():
                deidentify(item, patient, secret)
        else:
            _act(dataset, element, patient, secret)
    dataset.pop("OriginalAttributesSequence", None)


def rewritten(path: Path, into: Path, patient: str, secret: Secret) -> None:
    """The file at ``path``, de-identified, in ``into``; its pixels as they are.

    Raises Unfit if it cannot be read or written.
    """
    try:
        with lenient():
            dataset = dcmread(path, force=True)
            deidentify(dataset, patient, secret)
            _save(dataset, into)
    except Exception as error:  # whatever a damaged value makes the library raise
        raise Unfit(Reason.UNREADABLE, f"it cannot be rewritten: {type(error).__name__}") from error


def _save(dataset: Dataset, into: Path) -> None:
    meta = dataset.file_meta
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for keyword in list(meta.dir()):
        if keyword.startswith(("Private", "Sending", "Receiving", "Source")):
            del meta[keyword]
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian  # inflated in reading
    dataset.save_as(into)


def burned_in(head: Dataset) -> str | None:
    """Why a name may stand in the pixels, or None (PS3.15 has no way to be sure)."""
    if text(head, "BurnedInAnnotation").upper() == "YES":
        return "BurnedInAnnotation is YES"
    if text(head, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
        return "it is a secondary capture"
    if text(head, "ConversionType"):
        return "it was digitised or captured (ConversionType)"
    if any("SCREEN" in str(word).upper() for word in several(head, "ImageType")):
        return "ImageType says that it is a screen"
    return None


@functools.cache
def _profile() -> dict[tuple[int, ...], Any]:
    from dicomanonymizer.simpledicomanonymizer import initialize_actions

    return dict(initialize_actions(_EDITION))


@functools.cache
def _dated(tag: tuple[int, int]) -> bool:
    try:
        return dictionary_VR(tag) in ("DA", "DT")
    except KeyError:
        return False


def _act(dataset: Dataset, element: DataElement, patient: str, secret: Secret) -> None:
    tag = (element.tag.group, element.tag.element)
    action = _profile().get(tag)
    if element.VR == "UI":
        if action is not None:
            _map_uids(element, secret)
    elif element.VR in ("DA", "DT") or _dated(tag):
        _shift(dataset, element, patient, secret)
    elif element.VR == "PN":
        element.value = ""  # also those that the profile does not know of
    elif action is not None:
        action(dataset, tag)


def _map_uids(element: DataElement, secret: Secret) -> None:
    old = element.value
    several_uids = not isinstance(old, str) and old is not None
    new = [
        uid if uid.startswith(_STANDARD_UID) else secret.uid(uid)
        for uid in (map(str, old) if several_uids else [str(old or "")])
        if uid
    ]
    element.value = new if several_uids else "".join(new)


def _shift(dataset: Dataset, element: DataElement, patient: str, secret: Secret) -> None:
    """Dates by the patient's days; a time of day within a date is cut off, the birth date too."""
    born = element.keyword in ("PatientBirthDate", "PatientBirthDateInAlternativeCalendar")
    known = None if born else date(dataset, element.keyword)
    element.value = "" if known is None else f"{secret.shifted(known, patient):%Y%m%d}"
