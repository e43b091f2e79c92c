"""Lung tumours, and the harmless findings that look like them.

Each sign has its chance, as in the brain: adenocarcinomas are mostly peripheral, some of them of
ground glass and hardly avid; squamous ones central, large and avid, some with a cavity; small-cell
ones lie in the mediastinum with bulky nodes. What CT leaves open (a scar, a granuloma, a pneumonia)
PET often decides, and the reverse. The chances are meant to be plausible, not surveyed.
Units: HU, SUV.
"""

from __future__ import annotations

import numpy as np

from fedcore.data.phantoms.fields import FloatArray
from fedcore.data.phantoms.findings import Finding, Point, distance, happens, inside, somewhere
from fedcore.data.phantoms.lung.anatomy import Thorax

TUMOUR, NODE = 1, 2


def tumour(diagnosis: str, chest: Thorax, rng: np.random.Generator) -> list[Finding]:
    """The findings of a diagnosis, in the order in which to paint them."""
    makers = {
        "adenocarcinoma": _adenocarcinoma, "squamous": _squamous, "small-cell": _small_cell,
    }  # fmt: skip
    return makers[diagnosis](chest, rng) if diagnosis in makers else []


def _adenocarcinoma(chest: Thorax, rng: np.random.Generator) -> list[Finding]:
    """Peripheral, more often in the upper lobes, spiculated; some of ground glass."""
    _, _, z = chest.axes_mm()
    rim = (chest.lung < -9.0) & (chest.lung > -26.0) & (chest.hilum > 55.0)
    if happens(rng, 0.65):
        rim &= z > 0.0
    edge = distance(chest, _place(rim, chest, rng), rng.uniform(11.0, 18.0), 0.4, rng)
    findings = []
    glass = happens(rng, 0.4)
    if glass:
        halo = inside(edge - rng.uniform(4.0, 8.0), chest) * _in_lung(chest)
        findings.append(Finding(halo, {"ct": rng.uniform(-620, -480), "pet": 1.0}))
    looks = {"ct": rng.uniform(5, 45)}
    if happens(rng, 0.85):
        looks["pet"] = rng.uniform(1.8, 4.5) if glass else rng.uniform(4.0, 9.0)
    findings.append(Finding(inside(edge, chest) * _in_chest(chest), looks, TUMOUR))
    if happens(rng, 0.25):
        findings += _nodes(chest, 1, rng, radius_mm=(6.0, 9.0), avid=0.8)
    return findings


def _squamous(chest: Thorax, rng: np.random.Generator) -> list[Finding]:
    """Central and large, avid; some with a cavity, some with a collapsed lobe behind them."""
    near = (chest.hilum < 52.0) & (chest.lung < 2.0)
    if happens(rng, 0.25):
        near = (chest.lung < -12.0) & (chest.hilum > 50.0)
    radius = rng.uniform(17.0, 27.0)
    edge = distance(chest, _place(near, chest, rng), radius, 0.2, rng)
    looks = {"ct": rng.uniform(20, 55)}
    if happens(rng, 0.95):
        looks["pet"] = rng.uniform(8.0, 16.0)
    findings = []
    if happens(rng, 0.35):
        collapsed = inside(edge - rng.uniform(8.0, 16.0), chest) * _in_lung(chest)
        findings.append(Finding(collapsed, {"ct": rng.uniform(-50, 30), "pet": 2.0}))
    findings.append(Finding(inside(edge, chest) * _in_chest(chest), looks, TUMOUR))
    if happens(rng, 0.4):
        cavity = inside(edge + 0.55 * radius, chest)
        findings.append(Finding(cavity, {"ct": rng.uniform(-950, -700), "pet": 0.8}, TUMOUR))
    if happens(rng, 0.35):
        findings += _nodes(chest, 1, rng, radius_mm=(7.0, 11.0), avid=0.9)
    return findings


def _small_cell(chest: Thorax, rng: np.random.Generator) -> list[Finding]:
    """A mass from the hilum into the mediastinum, and bulky nodes; the liver in some."""
    x, y, z = chest.axes_mm()
    middle = (np.abs(x) < 48.0) & (np.abs(y) < 30.0) & (z > -15.0) & (z < 55.0)
    middle = middle & (chest.hilum < 45.0)
    edge = distance(chest, _place(middle, chest, rng), rng.uniform(18.0, 26.0), 0.35, rng)
    looks = {"ct": rng.uniform(25, 45)}
    if happens(rng, 0.92):
        looks["pet"] = rng.uniform(7.0, 13.0)
    findings = [Finding(inside(edge, chest) * _in_chest(chest), looks, TUMOUR)]
    if happens(rng, 0.9):
        findings += _nodes(chest, int(rng.integers(2, 5)), rng, radius_mm=(9.0, 15.0), avid=0.95)
    if happens(rng, 0.3):
        liver = chest.tissues["liver"] > 0.9
        for _ in range(int(rng.integers(1, 4)) if liver.any() else 0):
            spot = distance(chest, somewhere(liver, chest, rng), rng.uniform(8.0, 14.0), 0.2, rng)
            findings.append(Finding(inside(spot, chest), {"ct": 35.0, "pet": rng.uniform(6, 11)}))
    return findings


def incidental(diagnosis: str, age: int, chest: Thorax, rng: np.random.Generator) -> list[Finding]:
    """Harmless findings that one modality alone may take for a tumour."""
    often = 0.35 if diagnosis == "none" else 0.12
    deep = chest.lung < -10.0
    findings = []
    if happens(rng, often + 0.003 * max(age - 40, 0)):  # a granuloma, calcified and cold
        spot = distance(chest, _place(deep, chest, rng), rng.uniform(4.0, 8.0), 0.15, rng)
        findings.append(Finding(inside(spot, chest), {"ct": rng.uniform(150, 280), "pet": 0.9}))
    if happens(rng, often):  # a scar: dense, irregular, cold
        rim = (chest.lung < -6.0) & (chest.lung > -24.0)
        spot = distance(chest, _place(rim, chest, rng), rng.uniform(9.0, 15.0), 0.5, rng)
        scar = inside(spot, chest) * _in_lung(chest)
        findings.append(Finding(scar, {"ct": rng.uniform(-20, 40), "pet": rng.uniform(0.8, 1.6)}))
    if happens(rng, 0.8 * often):  # a pneumonia: patchy, moderately avid
        spot = distance(chest, _place(deep, chest, rng), rng.uniform(16.0, 28.0), 0.6, rng)
        patch = 0.7 * inside(spot, chest) * _in_lung(chest)
        findings.append(Finding(patch, {"ct": rng.uniform(-350, 0), "pet": rng.uniform(3.0, 6.5)}))
    if happens(rng, 0.8 * often):  # nodes that react
        findings += _nodes(chest, 2, rng, radius_mm=(5.0, 9.0), avid=0.6, suv=(2.5, 5.0), label=0)
    if happens(rng, 0.3):  # brown fat, or a muscle that was used: hot without a mass
        wall = (chest.cavity > 10.0) & (chest.body < -12.0)
        spot = distance(chest, _place(wall, chest, rng), rng.uniform(7.0, 12.0), 0.4, rng)
        findings.append(Finding(inside(spot, chest), {"pet": rng.uniform(3.0, 7.0)}))
    return findings


def _nodes(
    chest: Thorax,
    count: int,
    rng: np.random.Generator,
    *,
    radius_mm: tuple[float, float],
    avid: float,
    suv: tuple[float, float] = (5.0, 11.0),
    label: int = NODE,
) -> list[Finding]:
    """Lymph nodes of the hila and the mediastinum."""
    x, y, z = chest.axes_mm()
    stations = (np.abs(x) < 44.0) & (np.abs(y) < 34.0) & (z > -20.0) & (z < 70.0)
    stations = stations & (chest.hilum < 60.0)
    found = []
    for _ in range(count):
        edge = distance(chest, _place(stations, chest, rng), rng.uniform(*radius_mm), 0.15, rng)
        looks = {"ct": rng.uniform(25, 50)}
        if happens(rng, avid):
            looks["pet"] = rng.uniform(*suv)
        found.append(Finding(inside(edge, chest), looks, label))
    return found


def _place(allowed: np.ndarray, chest: Thorax, rng: np.random.Generator) -> Point:
    """One of the allowed places; of a chest that has none, one deep in its lungs."""
    return somewhere(allowed if allowed.any() else chest.lung < -5.0, chest, rng)


def _in_lung(chest: Thorax) -> FloatArray:
    return inside(chest.lung, chest)


def _in_chest(chest: Thorax) -> FloatArray:
    return inside(chest.cavity, chest)
