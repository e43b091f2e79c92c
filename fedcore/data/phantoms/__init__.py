"""Synthetic hospitals with real anatomy: what ``fedcore demo`` trains on.

anatomy      the MNI152 head, deformed        cohort       sites, scanners, people
contrast     tissue → HU, SUV, MR intensity   subject      a person → a Phantom
lesions      tumours and what mimics them     description  BIDS files that are not images
scanner      blur, shading, noise, storage    writer       everything into a site's store
damage       broken files, on purpose         fields       smooth random fields
dicom        the same as DICOM series
"""

from fedcore.data.phantoms.cohort import Person, SiteSpec, demo_federation, people
from fedcore.data.phantoms.subject import Phantom, subject
from fedcore.data.phantoms.writer import damages, write_federation, write_site

__all__ = [
    "Person", "Phantom", "SiteSpec", "damages", "demo_federation", "people", "subject",
    "write_federation", "write_site",
]  # fmt: skip
