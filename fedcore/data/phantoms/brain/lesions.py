"""Tumours, and the harmless findings that look like them.

The signs are drawn one by one, each with a chance, because no sign is certain: a glioma need not
enhance, a meningioma need not be dense, an adenoma need not be avid. What one modality leaves open
another decides, so that no single modality separates the classes and all of them nearly do.
Intensities are in the units of ``contrast``; the chances are meant to be plausible, not surveyed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedcore.data.phantoms.brain.anatomy import Anatomy
from fedcore.data.phantoms.fields import FloatArray
from fedcore.data.phantoms.findings import Finding, distance, happens, inside, somewhere

CLASSES = ("none", "glioma", "meningioma", "pituitary")
TUMOUR, OEDEMA = 1, 2
"""Values of a phantom's label volume; incidental findings are 0."""

_ENHANCED, _NATIVE = 100.0, 50.0
"""On T1, above what only contrast agent makes as bright, and what is there without it: as dark as a
glioma's own tissue."""

SELLA_MM = (0.0, 4.0, -31.0)
PINEAL_MM = (0.0, -28.0, 2.0)


def tumour(diagnosis: str, head: Anatomy, rng: np.random.Generator) -> list[Finding]:
    """The findings of ``diagnosis`` (one of CLASSES) in the order in which to paint them."""
    if diagnosis == "none":
        return []
    makers = {"glioma": _glioma, "meningioma": _meningioma, "pituitary": _pituitary}
    return makers[diagnosis](head, rng)


def _glioma(head: Anatomy, rng: np.random.Generator) -> list[Finding]:
    """Irregular, in the white matter; often a ring, a wide oedema, low density, high uptake."""
    _, _, z = head.axes_mm()
    deep = (head.white > 0.6) & (head.depth < -14.0) & (z > -20.0)
    edge = distance(head, somewhere(deep, head, rng), rng.uniform(14.0, 22.0), 0.3, rng)
    looks = {"t1ce": rng.uniform(48, 60)}
    if happens(rng, 0.9):
        looks["flair"] = rng.uniform(120, 145)
    if happens(rng, 0.8):
        looks["ct"] = rng.uniform(6, 16)
    if happens(rng, 0.85):
        looks["pet"] = rng.uniform(10, 14) if happens(rng, 0.65) else rng.uniform(1.0, 1.8)
    body = Finding(inside(edge, head) * _in_brain(head), looks, TUMOUR)
    findings = [body]
    if happens(rng, 0.7):
        wide = inside(edge - rng.uniform(7.0, 14.0), head) * _in_brain(head)
        swollen = wide * (0.25 + 0.75 * head.white)
        swelling = {"t1ce": 68.0, "flair": rng.uniform(125, 150), "ct": rng.uniform(19, 24)}
        findings.insert(0, Finding(swollen, swelling | {"pet": 2.0}, OEDEMA))
    enhancement = rng.choice(["ring", "solid", "none"], p=[0.55, 0.3, 0.15])
    if enhancement != "none":
        findings.append(Finding(body.mask, {"t1ce": rng.uniform(140, 190)}, TUMOUR))
    if enhancement == "ring":
        necrosis = inside(edge + rng.uniform(4.0, 6.0), head)
        dead = {"t1ce": rng.uniform(25, 40), "flair": rng.uniform(70, 110), "ct": 14.0, "pet": 1.0}
        findings.append(Finding(necrosis, dead, TUMOUR))
    return findings


def _meningioma(head: Anatomy, rng: np.random.Generator) -> list[Finding]:
    """Round, on the dura; mostly enhances evenly, often dense or calcified, rarely with oedema."""
    radius = rng.uniform(14.0, 21.0)
    x, y, z = head.axes_mm()
    under_dura = np.abs(head.depth + 0.6 * radius) < head.voxel_mm
    place = rng.choice(["convexity", "falx", "base"], p=[0.6, 0.15, 0.25])
    if place == "convexity":
        centre = somewhere(under_dura & (z > 5.0), head, rng)
    elif place == "falx":
        centre = somewhere(under_dura & (z > 20.0) & (np.abs(x) < 12.0), head, rng)
    else:
        near_sella = (np.abs(x) < 34.0) & (z < -10.0) & (y > -10.0) & (y < 40.0)
        centre = somewhere(under_dura & near_sella, head, rng)
    edge = distance(head, centre, radius, 0.08, rng)
    looks = {}
    if happens(rng, 0.9):
        looks["t1ce"] = rng.uniform(150, 195)
    if happens(rng, 0.25):
        looks["flair"] = rng.uniform(95, 120)
    if happens(rng, 0.85):
        looks["ct"] = rng.uniform(62, 85)
    if happens(rng, 0.7):
        looks["pet"] = rng.uniform(1.5, 3.5)
    findings = [Finding(inside(edge, head) * _in_skull(head), looks, TUMOUR)]
    if happens(rng, 0.25):
        swollen = inside(edge - rng.uniform(5.0, 9.0), head) * _in_brain(head)
        swelling = {"t1ce": 70.0, "flair": rng.uniform(120, 140), "ct": rng.uniform(20, 24)}
        findings.insert(0, Finding(swollen * (0.25 + 0.75 * head.white), swelling, OEDEMA))
    if happens(rng, 0.5):
        chalk = inside(edge + 0.4 * radius, head)
        findings.append(Finding(chalk, {"ct": rng.uniform(180, 400), "t1ce": 60.0}, TUMOUR))
    return findings


def _pituitary(head: Anatomy, rng: np.random.Generator) -> list[Finding]:
    """An adenoma: in the midline, from the sella upwards; enhances moderately, mostly avid."""
    radius = rng.uniform(10.0, 15.0)
    x, y, z = SELLA_MM + rng.normal(0.0, 1.5, 3)
    edge = distance(head, (x, y, z + 0.5 * radius), radius, 0.12, rng)
    looks = {}
    if happens(rng, 0.85):
        looks["t1ce"] = rng.uniform(125, 165)
    if happens(rng, 0.4):
        looks["flair"] = rng.uniform(85, 120)
    if happens(rng, 0.6):
        looks["ct"] = rng.uniform(45, 65)
    if happens(rng, 0.8):
        looks["pet"] = rng.uniform(9.0, 14.0)
    findings = [Finding(inside(edge, head), looks, TUMOUR)]
    if happens(rng, 0.2):
        cyst = {"t1ce": 35.0, "flair": rng.uniform(90, 130), "ct": 16.0, "pet": 1.5}
        findings.append(Finding(inside(edge + 0.5 * radius, head), cyst, TUMOUR))
    return findings


def incidental(diagnosis: str, age: int, head: Anatomy, rng: np.random.Generator) -> list[Finding]:
    """Harmless findings that one modality alone may take for a tumour; old scans have more."""
    often = 0.25 if diagnosis == "none" else 0.1
    white = (head.white > 0.7) & (head.depth < -8.0)
    findings = []

    def spot(radius_mm: float, unevenness: float, **looks: float) -> None:
        edge = distance(head, somewhere(white, head, rng), radius_mm, unevenness, rng)
        findings.append(Finding(inside(edge, head) * _in_brain(head), looks))

    for _ in range(rng.poisson(0.03 * max(age - 35, 0))):
        spot(rng.uniform(2.5, 5.0), 0.3, flair=rng.uniform(105, 130))
    if happens(rng, often):  # a cavernoma or a venous anomaly
        spot(rng.uniform(5.0, 11.0), 0.2, t1ce=rng.uniform(130, 180))
    if happens(rng, 0.6 * often):  # an old infarct, scarred around
        spot(rng.uniform(9.0, 16.0), 0.3, flair=rng.uniform(110, 140), ct=rng.uniform(14, 22))
    if happens(rng, 0.6 * often):  # a focus of cortical activity
        active = somewhere((head.grey > 0.7) & (head.depth > -12.0), head, rng)
        hot = inside(distance(head, active, rng.uniform(8.0, 14.0), 0.2, rng), head)
        findings.append(Finding(hot * _in_brain(head), {"pet": rng.uniform(9.5, 13)}))
    if happens(rng, often):  # plaques of the falx or the dura
        _, _, z = head.axes_mm()
        plaque = somewhere((np.abs(head.depth + 4.0) < head.voxel_mm) & (z > 5.0), head, rng)
        edge = distance(head, plaque, rng.uniform(5.0, 10.0), 0.2, rng)
        findings.append(Finding(inside(edge, head) * _in_skull(head), {"ct": rng.uniform(60, 300)}))
    if happens(rng, 0.5):
        pineal = distance(head, PINEAL_MM, 3.5, 0.1, rng)
        findings.append(Finding(inside(pineal, head), {"ct": rng.uniform(120, 300)}))
    if happens(rng, often):  # a full, normal gland
        gland = distance(head, SELLA_MM, rng.uniform(5.0, 8.0), 0.1, rng)
        findings.append(
            Finding(inside(gland, head), {"t1ce": rng.uniform(110, 140), "pet": 6.0, "ct": 40.0})
        )
    return findings


def native(finding: Finding) -> Finding:
    """``finding`` without contrast agent: on T1 dark where it would have been bright."""
    if finding.looks.get("t1ce", 0.0) < _ENHANCED:
        return finding
    return replace(finding, looks={**finding.looks, "t1ce": _NATIVE})


def _in_brain(head: Anatomy) -> FloatArray:
    fraction: FloatArray = np.clip(head.grey + head.white, 0.0, 1.0)
    return fraction


def _in_skull(head: Anatomy) -> FloatArray:
    return inside(head.depth - 1.0, head)
