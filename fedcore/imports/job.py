"""A source → a site's bucket: what ``fedcore site import`` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedcore.imports import dicoms, niftis
from fedcore.imports.index import index
from fedcore.imports.reasons import Reason
from fedcore.imports.records import Record
from fedcore.imports.run import Importer, Problem, Tally
from fedcore.imports.sources import Part, Source
from fedcore.imports.visits import Visit

OnStage = Callable[[str, int], Callable[[], None]]
"""Called as a stage begins with its name and number of steps; returns what to call a step."""


def silent(_name: str, _steps: int) -> Callable[[], None]:
    """An OnStage that tells nobody."""
    return lambda: None


def run(source: Source, importer: Importer, on_stage: OnStage = silent) -> Tally:
    """Import all that is new in ``source``. Raises what the source's and the bucket's stores do."""
    problems: list[Problem] = []
    with importer:
        for part in source.parts(importer.known):
            found, wrong = visits(part, importer, on_stage)
            problems += wrong
            importer.take(found, on_stage("importing studies", len(found)))
        importer.refuse(source.name, problems)
    return importer.tally


def visits(
    part: Part, importer: Importer, on_stage: OnStage = silent
) -> tuple[list[Visit], list[Problem]]:
    """What a part holds: DICOM by its headers, NIfTI by its folders; and what belongs nowhere."""
    images = [path for path in part.files if path.name.endswith(niftis.SUFFIXES)]
    others = [path for path in part.files if not path.name.endswith(niftis.SUFFIXES)]
    found = index(others, on_stage("reading headers", len(others)))
    problems = [
        Problem(str(refused.path.relative_to(part.root)), refused.reason, refused.message)
        for refused in found.refused
    ]
    problems += [Problem(name, reason, "it is listed and cannot be read")
                 for name, reason in part.missing]  # fmt: skip
    problems += [
        Problem(path.name, str(Reason.NO_PATIENT), "a NIfTI file lies in a folder named by the "
                "patient id")
        for path in niftis.strays(part.root, images)
    ]  # fmt: skip
    made = [dicoms.visit(study, importer.rules, importer.secret) for study in found.studies]
    return made + niftis.visits(part.root, images, importer.rules), problems


@dataclass(frozen=True)
class Journal:
    """Whose study stands behind which name: a file of the site's own, beside its secret.

    One JSON object a line; it is never put into the bucket. With it people at the site find a
    quarantined study again; whoever has it can undo the pseudonyms.
    """

    path: Path

    def note(self, visit: Visit, record: Record) -> None:
        """Add the study."""
        line = {"subject": record.subject, "study": record.study, "patient": visit.patient,
                "study_uid": visit.uid}  # fmt: skip
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with open(os.open(self.path, flags, 0o600), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> dict[str, tuple[str, str]]:
        """Study → (patient id, its UID), of all that was noted; {} without a file."""
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except OSError:
            return {}
        noted = (json.loads(line) for line in lines if line.strip())
        return {line["study"]: (line["patient"], line["study_uid"]) for line in noted}
