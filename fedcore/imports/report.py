"""What an import made of a site's scans, out of its bucket: counts, and each study left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.data import consent, participants
from fedcore.errors import NotFound
from fedcore.imports import records
from fedcore.imports.table import KEY
from fedcore.store.api import Store


@dataclass(frozen=True)
class Aside:
    """One series, mask or file that is in quarantine. ``study``: "" for a file of none."""

    subject: str
    study: str
    modality: str
    reason: str
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """``subjects`` were seen, ``used`` have a row and an image, ``consenting`` of them consent.

    ``images``: modality → how many. ``skipped``: reason → series that the rules do not want.
    ``surplus``: series of a modality of which another is used.
    """

    subjects: int
    used: int
    consenting: int
    studies: int
    images: Mapping[str, int]
    skipped: Mapping[str, int]
    surplus: int
    aside: tuple[Aside, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """Reason → how often something was set aside for it."""
        return dict(Counter(item.reason for item in self.aside).most_common())

    @property
    def counted(self) -> dict[Aside, int]:
        """What is aside, each once, and how often: files of no subject differ in nothing."""
        return dict(Counter(self.aside))

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subjects": self.subjects, "used": self.used, "consenting": self.consenting,
            "studies": self.studies, "images": dict(self.images), "skipped": dict(self.skipped),
            "surplus": self.surplus, "quarantined": [vars(item) for item in self.aside],
        }  # fmt: skip


def report(store: Store) -> Report:
    """Read the bucket. Raises DataError if a record or the table there is none."""
    every = list(records.every(store))
    rows = _rows(store)
    with_image = {record.subject for record in every if record.used()}
    used = with_image & set(rows)
    outcomes = [outcome for record in every for outcome in record.outcomes]
    aside = tuple(_aside(store))
    return Report(
        subjects=len({record.subject for record in every}),
        used=len(used),
        consenting=sum(_consents(rows[subject]) for subject in used),
        studies=len(every),
        images=dict(Counter(o.modality or "" for o in outcomes if o.what == "used" and o.shape)),
        skipped=dict(Counter(o.reason or "" for o in outcomes if o.what == "skipped")),
        surplus=sum(outcome.what == "surplus" for outcome in outcomes),
        aside=aside,
    )


def _rows(store: Store) -> Mapping[str, Mapping[str, str]]:
    try:
        return participants.read(store.get(KEY), source=KEY).rows
    except NotFound:
        return {}


def _consents(row: Mapping[str, str]) -> bool:
    words = row.get("consent", "").replace(";", " ").split()
    return bool(words) and consent.WITHDRAWN not in words


def _aside(store: Store) -> list[Aside]:
    found = []
    for key in store.list(records.QUARANTINE):
        entry = json.loads(store.get(key))
        found += [
            Aside(entry["subject"] or "", entry.get("study", ""), item.get("modality") or "",
                  item["reason"], item["sentence"], item["remedy"])
            for item in entry["items"]
        ]  # fmt: skip
    return found
