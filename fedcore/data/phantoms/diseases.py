"""The diseases that there are phantoms of, by name."""

from fedcore.data.phantoms.brain import BRAIN
from fedcore.data.phantoms.lung import LUNG
from fedcore.data.phantoms.retina import RETINA

DISEASES = {disease.name: disease for disease in (BRAIN, LUNG, RETINA)}
