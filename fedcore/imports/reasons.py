"""Why something could not be used, in words that may be counted, and what can be done about it."""

from __future__ import annotations

from enum import StrEnum

from fedcore.errors import DataError


class Reason(StrEnum):
    """A short category: it holds nothing of the patient, and a run's counts may show it."""

    UNREADABLE = "unreadable file"
    GONE = "file is missing"
    NO_PATIENT = "no patient id"
    NO_SERIES = "no study or series UID"
    TWO_PATIENTS = "one series of two patients"
    NO_POSITION = "no position in space"
    ORIENTATION = "wrong orientation"
    MIXED = "slices of different geometry"
    TOO_FEW = "too few slices"
    MISSING = "missing slices"
    IRREGULAR = "irregular spacing"
    CONFLICT = "conflicting slices"
    VOLUMES = "more than one volume"
    TOO_LARGE = "too large"
    COLOUR = "colour image"
    BURNED_IN = "burned-in text"
    COMPRESSION = "unknown compression"
    PIXELS = "damaged pixels"
    GEOMETRY = "geometry lost in conversion"
    UNSAFE_ARCHIVE = "unsafe archive"
    NO_WEIGHT = "no body weight"
    NO_DOSE = "no injected dose"
    NO_TIME = "no injection time"
    DECAY = "unknown decay correction"
    PET_UNIT = "unknown PET unit"
    SUV_TYPE = "SUV not by body weight"
    COUNTS = "counts without a factor"
    MASK_ALONE = "mask without its image"
    MASK_EMPTY = "no structure that the rules want"
    MASK_OPEN = "unusable contours"
    NO_FACE_CUT = "no face to remove found"
    INTERNAL = "could not be read"


REMEDIES = {
    Reason.UNREADABLE: "Export the file again from the PACS; if it opens there, send it as DICOM "
    "Part 10.",
    Reason.GONE: "The DICOMDIR lists a file that is not there: copy the whole medium.",
    Reason.NO_PATIENT: "Set PatientID at the source: without it two studies of a patient are two "
    "subjects, and one may train what the other tests.",
    Reason.NO_SERIES: "Export the study again: the PACS fills in the missing UIDs.",
    Reason.TWO_PATIENTS: "Find out at the source whose the series is, and export it again.",
    Reason.NO_POSITION: "Import the original slices, not screenshots or a secondary capture.",
    Reason.ORIENTATION: "Export the original series; a reformatting tool wrote wrong directions.",
    Reason.MIXED: "Export each stack as a series of its own, or have the rules skip the series.",
    Reason.TOO_FEW: "If it is meant, lower min_slices in the rules; else find the rest.",
    Reason.MISSING: "Export the series again: slices were lost on the way, or the study was still "
    "being sent.",
    Reason.IRREGULAR: "Import the original reconstruction with even spacing, if there is one.",
    Reason.CONFLICT: "Two different slices claim one place: export the series again, without what "
    "was added later.",
    Reason.VOLUMES: "Export one echo, phase or time as a series of its own, or have the rules skip "
    "it.",
    Reason.TOO_LARGE: "Look at Rows, Columns and NumberOfFrames: the header is damaged, or it is "
    "no single volume.",
    Reason.COLOUR: "Import the grey-scale original, not a fused or colour-coded copy.",
    Reason.BURNED_IN: "Have somebody look at it; if no name shows, set burned_in: flag in the "
    "rules.",
    Reason.COMPRESSION: "Have the PACS export it as Explicit VR Little Endian; or decompress it: "
    "JPEG of 12 bits with dcmdjpeg (DCMTK), HTJ2K with pydicom and pylibjpeg-openjpeg.",
    Reason.PIXELS: "Export the series again: its pixels are damaged or cut short.",
    Reason.GEOMETRY: "Report it: the image does not lie where its header says.",
    Reason.UNSAFE_ARCHIVE: "Unpack the archive by hand, look at it, and import the folder.",
    Reason.NO_WEIGHT: "Enter PatientWeight at the PET workstation and export again.",
    Reason.NO_DOSE: "Enter the injected activity (Bq) at the PET workstation and export again.",
    Reason.NO_TIME: "Enter the injection's time at the PET workstation and export again.",
    Reason.DECAY: "Export a reconstruction that is corrected to the start of the scan.",
    Reason.PET_UNIT: "Export the PET in Bq/mL.",
    Reason.SUV_TYPE: "Export the PET in Bq/mL, or as SUV by body weight.",
    Reason.COUNTS: "Export the PET in Bq/mL; Philips' counts need its private SUV factor, which "
    "some PACS strip.",
    Reason.MASK_ALONE: "Import the series that it was drawn on, together with it.",
    Reason.MASK_EMPTY: "Add the structure's name to masks in the rules.",
    Reason.MASK_OPEN: "Export the structures as closed planar contours on the image's slices.",
    Reason.NO_FACE_CUT: "No brain was found to cut along: have somebody look at the image.",
    Reason.INTERNAL: "Report it with the log: this should have had a reason of its own.",
}

_OTHERWISE = "Export or convert the file again."


def remedy(reason: str) -> str:
    """What can be done about it; for a reason of ``fedcore.data.nifti`` too."""
    return REMEDIES.get(reason, _OTHERWISE)  # type: ignore[call-overload,no-any-return]


class Unfit(DataError):
    """What cannot be used, and why. The message may hold what must stay at the site."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message, reason=str(reason))
