"""One head in the scanner: healthy tissue, what is found in it, and what each modality shows."""

from __future__ import annotations

from fedcore.data.phantoms.brain import contrast, lesions
from fedcore.data.phantoms.brain.anatomy import deformed, template
from fedcore.data.phantoms.cohort import Person, SiteSpec
from fedcore.data.phantoms.findings import painted
from fedcore.data.phantoms.scanner import acquired
from fedcore.data.phantoms.subject import Phantom, labelled, streams


def scanned(spec: SiteSpec, person: Person, seed: int) -> Phantom:
    """``person`` in the scanner."""
    stream = streams(spec, person, seed)
    head = deformed(template(spec.voxel_mm), stream("anatomy"))
    healthy = contrast.tissues(head, stream("tissues"))
    tumour = lesions.tumour(person.diagnosis, head, stream("tumour"))
    incidental = lesions.incidental(person.diagnosis, person.age, head, stream("incidental"))
    findings, agent = [*incidental, *tumour], person.scanner.agent
    if not agent:
        findings = [lesions.native(finding) for finding in findings]
    images = {}
    for modality in person.modalities:
        ideal = contrast.rendered(healthy, modality, stream("contrast", modality), agent=agent)
        ideal = painted(ideal, findings, modality)
        images[modality] = acquired(
            ideal, modality, person.scanner, spec.voxel_mm, stream("scanner", modality)
        )
    return Phantom(person, images, labelled(tumour, head.shape), head.affine)
