"""One eye before the fundus camera and the OCT device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.phantoms.cohort import Person, SiteSpec
from fedcore.data.phantoms.retina import fundus
from fedcore.data.phantoms.retina import oct as layers
from fedcore.data.phantoms.retina.signs import eye
from fedcore.data.phantoms.subject import Phantom, streams


def scanned(spec: SiteSpec, person: Person, seed: int) -> Phantom:
    """``person``'s eye, the same in both images. There is nothing outlined in it."""
    stream = streams(spec, person, seed)
    found = eye(person.diagnosis, person.age, stream("signs"))
    images: dict[str, NDArray[Any]] = {}
    for name in person.modalities:
        make = fundus.photo if name == "fundus" else layers.volume
        images[name] = make(found, person.scanner, stream(name))
    return Phantom(person, images, np.zeros(layers.SHAPE, np.uint8), layers.affine())
