"""Diseases of the retina on fundus photos and OCT: who comes to which hospital, and files."""

from __future__ import annotations

from fedcore.data.phantoms.disease import Disease, Hospital, Population
from fedcore.data.phantoms.retina.camera import Camera

_HOSPITALS = (
    Hospital("north", 96, (
        Camera("Borealis eye clinic"),
        Camera("Borealis screening", pixels=256, field=0.98, tint=(1.05, 0.9, 0.7), blur=1.0,
               noise=7.0, speckle=0.42, oct_gain=0.8, oct_offset=20.0),
    )),
    Hospital("east", 80, (
        Camera("Orient fundus room", pixels=288, field=0.85, tint=(0.9, 1.0, 1.1), vignette=0.45,
               noise=6.0),
    ), lacks=("oct",), age_shift=3.0),
    Hospital("south", 72, (
        Camera("Austral SD", pixels=384, tint=(1.1, 1.05, 0.9), noise=3.0, speckle=0.25,
               oct_gain=8.0, oct_offset=-60.0),
        Camera("Austral swept source", pixels=320, tint=(0.95, 0.95, 1.0), vignette=0.2,
               speckle=0.36, oct_gain=1.3, oct_offset=10.0, oct_blur=1.0),
    ), age_shift=-3.0),
    Hospital("west", 64, (
        Camera("Zephyr outreach", pixels=240, field=0.9, tint=(1.15, 0.85, 0.6), vignette=0.5,
               blur=1.3, noise=9.0, speckle=0.45, oct_gain=0.6, oct_offset=5.0, oct_blur=1.2,
               jitter_mm=0.016),
    ), damaged=True),
)  # fmt: skip

_README = """Synthetic images of the site {site}: {size} eyes, one a subject, none of whom exists.

Made by fedcore from formulas: fundus photos (JPEG) and OCT volumes (NIfTI, RAS+, Y in depth) of the
same eye. Some are ill, others have a harmless finding. For tests and demonstrations of software,
never for medical conclusions.
"""

RETINA = Disease(
    name="retina",
    purpose="retina-research",
    people={
        "normal": Population(58.0, 13.0, 0.52),
        "dr": Population(57.0, 11.0, 0.45),
        "amd": Population(75.0, 8.0, 0.60),
        "glaucoma": Population(66.0, 10.0, 0.48),
    },
    hospitals=_HOSPITALS,
    paths={"fundus": "fundus/{0}_fundus.jpg", "oct": "oct/{0}_oct.nii.gz"},
    readme=_README,
    scanned="fedcore.data.phantoms.retina.look:scanned",
    ignored=("**/fundus", "**/oct"),  # BIDS has no images of the eye
)
