"""Synthetic hospitals: what ``fedcore demo`` trains on.

disease      what one is about, as data       subject      a person → a Phantom
cohort       sites, devices, people           writer       everything into a site's store
brain        the MNI152 head, deformed        description  BIDS files that are not images
lung         a thorax out of formulas         files        NIfTI and JPEG
retina       a fundus and its layers          damage       broken files, on purpose
findings     lesions, and what mimics them    dicom        the same as DICOM series
scanner      blur, shading, noise, storage    fields       smooth random fields
"""

from fedcore.data.phantoms.cohort import Person, SiteSpec, demo_federation, people
from fedcore.data.phantoms.subject import Phantom, subject
from fedcore.data.phantoms.writer import damages, write_federation, write_site

__all__ = [
    "Person", "Phantom", "SiteSpec", "damages", "demo_federation", "people", "subject",
    "write_federation", "write_site",
]  # fmt: skip
