"""A volume → a DICOM series, as a scanner sends it: what ``fedcore demo --from-dicom`` imports.

CT, MR and PET image IODs (DICOM PS3.3), one slice a file. Needs the extra ``site`` (pydicom).
"""

from __future__ import annotations

import datetime
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from fedcore.data.phantoms.cohort import Person, SiteSpec
from fedcore.data.phantoms.files import digitised
from fedcore.data.phantoms.scanner import stored
from fedcore.data.phantoms.subject import scanned
from fedcore.data.phantoms.writer import Objects, unlucky

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
_LPS = np.array([-1.0, -1.0, 1.0])  # RAS+ millimetres → DICOM's

_DAY = datetime.date(2024, 3, 1)
_INJECTED, _SCANNED, _HALF_LIFE_S = "090000", "100000", 6586.2
_DOSE_BQ, _WEIGHT_KG = 3.0e8, 75.0

_PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "t1ce": {"Modality": "MR", "SeriesDescription": "Ax T1 3D +C", "ScanningSequence": "GR",
             "SequenceVariant": "SP", "MRAcquisitionType": "3D", "RepetitionTime": "8.0",
             "EchoTime": "3.2", "ContrastBolusAgent": "Gadobutrol"},
    "flair": {"Modality": "MR", "SeriesDescription": "Ax T2 FLAIR", "ScanningSequence": "SE",
              "SequenceVariant": "SK", "MRAcquisitionType": "2D", "RepetitionTime": "9000",
              "EchoTime": "120", "InversionTime": "2500"},
    "ct": {"Modality": "CT", "SeriesDescription": "Head 3.0", "KVP": "120",
           "ConvolutionKernel": "H31s"},
    "pet": {"Modality": "PT", "SeriesDescription": "PET AC"},
}  # fmt: skip


def uid(*parts: object) -> UID:
    """A UID that follows from ``parts`` alone (PS3.5 B.2).

    >>> uid("north", 1) == uid("north", 1) != uid("north", 2)
    True
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16])}")


def slices(
    voxels: NDArray[np.int16],
    affine: NDArray[np.float64],
    fields: Mapping[str, Any],
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> list[Dataset]:
    """One dataset for each voxels[:, :, k]; value = slope · stored + intercept.

    ``affine``: voxel index → RAS+ mm. ``fields``: DICOM keyword → value, Modality, PatientID,
    StudyInstanceUID and SeriesInstanceUID among them.
    """
    directions = affine[:3, :3] * _LPS[:, None]
    steps = np.linalg.norm(directions, axis=0)
    cosines = directions / steps
    made = []
    for k in range(voxels.shape[2]):
        image = Dataset()
        image.SOPClassUID = _CLASSES[fields["Modality"]]
        image.SOPInstanceUID = uid(fields["SeriesInstanceUID"], k)
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.ImageType = ["ORIGINAL", "PRIMARY"]
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = _decimals((affine @ [0, 0, k, 1])[:3] * _LPS)
        image.ImageOrientationPatient = _decimals([*cosines[:, 0], *cosines[:, 1]])
        image.PixelSpacing = _decimals([steps[1], steps[0]])
        image.SliceThickness = _decimals([steps[2]])[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Columns, image.Rows = voxels.shape[:2]
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = 1
        if fields["Modality"] != "MR":
            image.RescaleSlope, image.RescaleIntercept = _decimals([slope, intercept])
        for keyword, value in fields.items():
            setattr(image, keyword, value)
        image.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        made.append(image)
    return made


def file(image: Dataset) -> bytes:
    """The dataset as a DICOM file."""
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def person_files(spec: SiteSpec, person: Person, seed: int) -> Objects:
    """Path → bytes: a subject's scans as DICOM, a folder a series; broken if it is unlucky."""
    phantom = scanned(spec, person, seed)
    files: Objects = {}
    for modality, image in phantom.images.items():
        step = spec.disease.step.get(modality, 1.0)
        placed = stored(digitised(image, step), phantom.affine, person.scanner)
        made = scan(spec.name, person, modality, *placed, step)
        folder = f"{spec.name}/{person.label}/{modality}"
        files |= {f"{folder}/{k:04}.dcm": file(slice_) for k, slice_ in enumerate(made)}
    damage = dict(zip(unlucky(spec, seed), _DAMAGES, strict=False)).get(person.label)
    if damage is not None:
        damage(files, next(iter(files)).replace("0000.dcm", "0005.dcm"))
    return files


def patient_id(site: str, person: Person) -> str:
    """What the hospital calls a person."""
    return f"{site.upper()}-{person.label.removeprefix('sub-')}"


def patient_list(spec: SiteSpec, persons: Sequence[Person]) -> str:
    """The hospital's own list, as CSV: diagnosis and consent by patient id."""
    rows = [
        f"{patient_id(spec.name, person)},{person.diagnosis},{';'.join(person.consent) or 'n/a'}"
        for person in persons
    ]
    return "\n".join(["patient_id,diagnosis,consent", *rows, ""])


def _lost(files: Objects, path: str) -> None:
    """A slice did not arrive."""
    del files[path]


def _cut(files: Objects, path: str) -> None:
    """A slice arrived in part."""
    files[path] = files[path][: len(files[path]) // 2]


def _nowhere(files: Objects, path: str) -> None:
    """A slice that has no position any more."""
    image = dcmread(io.BytesIO(files[path]))
    del image.ImagePositionPatient
    files[path] = file(image)


_DAMAGES = (_lost, _cut, _nowhere)


def scan(
    site: str,
    person: Person,
    modality: str,
    voxels: NDArray[np.int16],
    affine: NDArray[np.float64],
    step: float,
) -> list[Dataset]:
    """One modality of a simulated patient, who has a name, as it leaves the scanner.

    ``voxels · step``: MR in the scanner's unit, CT in HU, PET in SUV (stored as Bq/mL).
    """
    patient = patient_id(site, person)
    protocol = _PROTOCOLS[modality]
    fields = {
        "PatientName": f"Phantom^{patient}", "PatientID": patient, "PatientSex": person.sex,
        "PatientBirthDate": f"{_DAY.year - person.age}0101", "PatientAge": f"{person.age:03}Y",
        "StudyInstanceUID": uid(site, person.label), "StudyDate": f"{_DAY:%Y%m%d}",
        "SeriesDate": f"{_DAY:%Y%m%d}", "AcquisitionDate": f"{_DAY:%Y%m%d}", "StudyTime": _SCANNED,
        "SeriesTime": _SCANNED, "AcquisitionTime": _SCANNED,
        "SeriesInstanceUID": uid(site, person.label, modality), "SeriesNumber": 1,
        "FrameOfReferenceUID": uid(site, person.label, "frame"), "Manufacturer": "fedcore",
        "ManufacturerModelName": person.scanner.name, "InstitutionName": f"{site} hospital",
        **protocol,
    }  # fmt: skip
    if modality != "pet":
        return slices(voxels, affine, fields, slope=step)
    # Bq/mL, corrected to the start of the scan: the import has to find the SUV again.
    becquerels = _DOSE_BQ * 0.5 ** (3600 / _HALF_LIFE_S) / (1000 * _WEIGHT_KG)
    return slices(voxels, affine, fields | _injection(), slope=step * becquerels)


def _injection() -> dict[str, Any]:
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime = _INJECTED
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = _DOSE_BQ, _HALF_LIFE_S
    drug.Radiopharmaceutical = "FDG"
    return {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN"],
        "PatientWeight": _WEIGHT_KG,
        "RadiopharmaceuticalInformationSequence": [drug],
    }


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[str]:
    """Decimal strings of at most 16 characters, as PS3.5 wants them."""
    return [f"{float(value):.10g}"[:16] for value in values]
