"""A scan → its files in BIDS: image, sidecar with provenance, masks.

https://bids-specification.readthedocs.io/en/stable/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcore import __version__
from fedcore.data.layout import mask_key
from fedcore.imports.convert import as_nifti
from fedcore.imports.masks import Mask
from fedcore.imports.records import as_json
from fedcore.imports.visits import Volume

_TOLD = frozenset({  # of what dcm2niix knows: how the scan was made, nothing of where and of whom
    "Modality", "Manufacturer", "ManufacturersModelName", "SoftwareVersions", "BodyPartExamined",
    "PatientPosition", "MagneticFieldStrength", "ImagingFrequency", "MRAcquisitionType",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "ImageType", "SliceThickness",
    "SpacingBetweenSlices", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle",
    "EchoTrainLength", "PixelBandwidth", "NumberOfAverages", "PercentSampling",
    "PhaseEncodingSteps", "ReceiveCoilName", "KVP", "XRayTubeCurrent", "XRayExposure",
    "ConvolutionKernel", "GantryDetectorTilt", "ReconMethodName",
    "ConversionSoftware", "ConversionSoftwareVersion", "InjectedRadioactivity", "TracerName",
})  # fmt: skip
_KINDS = {"anat": ("MR", "arbitrary"), "ct": ("CT", "HU"), "pet": ("PT", "SUV")}

# BIDS wants these of a PET; which of them stand for nothing known is said in fedcore.unknown.
_PET: Mapping[str, Any] = {
    "TracerName": "n/a", "TracerRadionuclide": "n/a", "InjectedRadioactivity": 0,
    "InjectedRadioactivityUnits": "MBq", "InjectedMass": "n/a", "InjectedMassUnits": "n/a",
    "SpecificRadioactivity": "n/a", "SpecificRadioactivityUnits": "n/a",
    "ModeOfAdministration": "bolus", "TimeZero": "00:00:00", "ScanStart": 0, "InjectionStart": 0,
    "FrameTimesStart": [0], "FrameDuration": [0], "AcquisitionMode": "static",
    "ImageDecayCorrected": True, "ImageDecayCorrectionTime": 0, "ReconMethodName": "n/a",
    "ReconMethodParameterLabels": ["none"], "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0], "ReconFilterType": "none", "AttenuationCorrection": "n/a",
    "Manufacturer": "n/a", "ManufacturersModelName": "n/a", "BodyPart": "n/a",
}  # fmt: skip

DATASET: Mapping[str, bytes] = {
    "dataset_description.json": as_json({
        "Name": "imported by fedcore", "BIDSVersion": "1.10.0", "DatasetType": "raw",
        "License": "n/a", "Authors": ["the site"],
        "GeneratedBy": [{"Name": "fedcore", "Version": __version__}],
    }),
    "participants.json": as_json({
        "sex": {"Description": "sex", "Levels": {"F": "female", "M": "male", "O": "other"}},
        "age": {"Description": "age at the first study; 89 stands for 89 and above",
                "Units": "year"},
        "scanner": {"Description": "manufacturer and model of the first study"},
        "diagnosis": {"Description": "as the site's list has it"},
        "consent": {"Description": "purposes consented to, separated by semicolons; "
                                   "empty = no consent, n/a = consent withdrawn"},
    }),
    "README": b"Imported by `fedcore site import`: de-identified, pseudonyms and dates by the "
              b"site's secret.\nWhat was not used and why: `fedcore site report`.\n",
    ".bidsignore": b"**/ct\n",  # CT is not in BIDS yet
}  # fmt: skip


def image_key(subject: str, session: str, into: str) -> str:
    """Where a modality's image lies.

    >>> image_key("sub-1", "ses-1", "anat/FLAIR")
    'sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz'
    """
    folder, _, name = into.partition("/")
    return f"{subject}/{session}/{folder}/{subject}_{session}_{name}.nii.gz"


def image_files(key: str, volume: Volume, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The image and its sidecar."""
    folder = key.split("/")[2]
    modality, unit = _KINDS[folder]
    told = {name: value for name, value in volume.described.items() if name in _TOLD}
    sidecar = {
        **(_PET if folder == "pet" else {}), **told, "Modality": modality, "Units": unit,
        "fedcore": {**provenance, "done": list(volume.notes), "version": __version__},
    }  # fmt: skip
    if folder == "pet":
        sidecar["fedcore"]["unknown"] = sorted(_PET.keys() - told.keys())
    if "_ce-gadolinium_" in key:
        sidecar["ContrastBolusIngredient"] = "GADOLINIUM"
    return {
        key: as_nifti(volume.voxels, volume.affine),
        f"{key.removesuffix('.nii.gz')}.json": as_json(sidecar),
    }


def mask_file(image: str, name: str, mask: Mask, affine: Any) -> dict[str, bytes]:
    """A mask, on its image's grid."""
    return {mask_key(image, name): as_nifti(mask, affine)}
