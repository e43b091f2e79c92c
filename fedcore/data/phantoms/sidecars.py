"""What a scan's JSON file says, as BIDS 1.10 wants it."""

from __future__ import annotations

from typing import Any

PET: dict[str, Any] = {
    "Manufacturer": "fedcore",
    "ManufacturersModelName": "phantom",
    "Modality": "PT",
    "Units": "g/mL",
    "ScaleFactor": [1],
    "TracerName": "FDG",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": 200.0,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": "n/a",
    "InjectedMassUnits": "n/a",
    "SpecificRadioactivity": "n/a",
    "SpecificRadioactivityUnits": "n/a",
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "ScanStart": 2700,
    "InjectionStart": 0,
    "FrameTimesStart": [2700],
    "FrameDuration": [900],
    "AcquisitionMode": "static",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "ReconMethodName": "synthetic",
    "ReconMethodParameterLabels": ["none"],
    "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0],
    "ReconFilterType": "Gaussian",
    "ReconFilterSize": 5,
    "AttenuationCorrection": "none: no attenuation was simulated",
}

MR: dict[str, Any] = {
    "Manufacturer": "fedcore",
    "ManufacturersModelName": "phantom",
    "Modality": "MR",
}
