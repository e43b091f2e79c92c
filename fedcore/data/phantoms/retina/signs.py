"""What a retina has: its signs, each with a chance, and where they lie. Both images are made of it.

Millimetres on the retina from the fovea, of a right eye as an observer sees it: x towards the
optic disc (nasal), y upwards. A left eye is mirrored when it is drawn. The chances are meant to be
plausible, not surveyed; no single sign decides, and OCT and photo each show some of them better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedcore.data.phantoms.findings import happens

CLASSES = ("normal", "dr", "amd", "glaucoma")
DISC_MM, DISC_RADIUS_MM = (4.4, 0.25), 0.9
Spot = tuple[float, float, float]
"""x, y, radius (mm)."""


@dataclass(frozen=True)
class Eye:
    """One eye. ``drusen``: under the retina; ``exudates``, ``bleedings``, ``cotton``: in it.

    ``cup``: the excavation's share of the disc's diameter. ``rim``: 1 = a full layer of nerve
    fibres, by half (upper, lower). ``swelling``: thickening of the macula (mm). ``cysts`` within
    it, ``fluid`` under it (x, y, radius). ``atrophy``: where pigment is lost. ``membrane``: on top.
    """

    left: bool
    cup: float
    rim: tuple[float, float] = (1.0, 1.0)
    microaneurysms: Sequence[Spot] = ()
    bleedings: Sequence[Spot] = ()
    exudates: Sequence[Spot] = ()
    cotton: Sequence[Spot] = ()
    drusen: Sequence[Spot] = ()
    atrophy: Sequence[Spot] = ()
    cysts: Sequence[Spot] = ()
    fluid: Sequence[Spot] = field(default=())
    swelling: float = 0.0
    membrane: bool = False


def eye(diagnosis: str, age: int, rng: np.random.Generator) -> Eye:
    """An eye with a diagnosis (one of CLASSES), and with the harmless findings of its age."""
    left = happens(rng, 0.5)
    cup = float(np.clip(rng.normal(0.36, 0.1), 0.1, 0.6))
    if happens(rng, 0.08):
        cup = rng.uniform(0.55, 0.7)  # large, and healthy
    few = rng.poisson(0.06 * max(age - 45, 0))
    drusen = _scattered(rng, few, 1.6, (0.03, 0.06))
    if diagnosis == "dr":
        return _diabetic(left, cup, drusen, rng)
    if diagnosis == "amd":
        return _macular(left, cup, rng)
    if diagnosis == "glaucoma":
        return _glaucomatous(left, drusen, rng)
    bleedings = _scattered(rng, int(happens(rng, 0.08)), 4.0, (0.05, 0.12))
    return Eye(left, cup, drusen=drusen, bleedings=bleedings, membrane=happens(rng, 0.1))


def _diabetic(left: bool, cup: float, drusen: Sequence[Spot], rng: np.random.Generator) -> Eye:
    """Microaneurysms always, the rest by how far it went; oedema of the macula in some."""
    stage = rng.uniform(0.15, 1.0)
    oedema = happens(rng, 0.2 + 0.4 * stage)
    exudates = []
    if happens(rng, 0.3 + 0.5 * stage):
        for x, y, _ in _scattered(rng, int(rng.integers(1, 4)), 2.6, (0.3, 0.6)):
            cluster = _scattered(rng, int(rng.integers(6, 18)), 0.5, (0.03, 0.09))
            exudates += [(x + a, y + b, radius) for a, b, radius in cluster]
    return Eye(
        left, cup, drusen=drusen, exudates=exudates,
        microaneurysms=_scattered(rng, int(6 + 40 * stage), 4.5, (0.03, 0.06)),
        bleedings=_scattered(rng, rng.poisson(14 * stage**1.5), 4.5, (0.07, 0.22)),
        cotton=_scattered(rng, rng.poisson(2.0 * stage), 4.0, (0.2, 0.35)),
        swelling=rng.uniform(0.08, 0.25) if oedema else 0.0,
        cysts=_scattered(rng, int(rng.integers(5, 14)), 1.1, (0.08, 0.2)) if oedema else (),
        membrane=happens(rng, 0.15),
    )  # fmt: skip


def _macular(left: bool, cup: float, rng: np.random.Generator) -> Eye:
    """Drusen of all sizes; atrophy in some, fluid and blood under the retina in others."""
    drusen = _scattered(rng, int(rng.integers(18, 70)), 1.5, (0.04, 0.14))
    kind = rng.choice(["early", "dry", "wet"], p=[0.45, 0.2, 0.35])
    if kind == "dry":
        return Eye(left, cup, drusen=drusen, atrophy=_scattered(rng, 2, 0.7, (0.5, 1.0)))
    if kind == "wet":
        return Eye(
            left, cup, drusen=drusen, fluid=_scattered(rng, 2, 0.7, (0.4, 0.9)),
            bleedings=_scattered(rng, int(rng.integers(0, 3)), 1.0, (0.2, 0.5)),
            swelling=rng.uniform(0.0, 0.1),
        )  # fmt: skip
    return Eye(left, cup, drusen=drusen)


def _glaucomatous(left: bool, drusen: Sequence[Spot], rng: np.random.Generator) -> Eye:
    """A deep cup, and fibres lost above, below or both."""
    cup = float(np.clip(rng.normal(0.72, 0.08), 0.5, 0.92))
    lost = [rng.uniform(0.25, 0.7), rng.uniform(0.25, 1.0)]
    rng.shuffle(lost)
    return Eye(left, cup, rim=(lost[0], lost[1]), drusen=drusen)


def _scattered(
    rng: np.random.Generator, count: int, spread_mm: float, radius_mm: tuple[float, float]
) -> list[Spot]:
    """Around the fovea, the more the nearer; none on the disc."""
    spots: list[Spot] = []
    while len(spots) < count:
        x, y = rng.normal(0.0, 0.6 * spread_mm, 2)
        if np.hypot(x - DISC_MM[0], y - DISC_MM[1]) > DISC_RADIUS_MM + 0.3 and np.hypot(x, y) < 5.5:
            spots.append((float(x), float(y), float(rng.uniform(*radius_mm))))
    return spots
