"""What became of each study, as JSON in the site's bucket; and where everything lies there.

    derivatives/fedcore/import/<study>.json      the study's record: its commit, and its provenance
    derivatives/fedcore/quarantine/<…>.json      what could not be used, and why
    derivatives/fedcore/masks/sub-…/             masks, on the grid of the image they belong to
    derivatives/fedcore/import-secret            a word by the site's secret: that it is the same

Names here are HMACs by the site's secret. Nothing of a patient's name or number is in the bucket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from pydantic import ValidationError

from fedcore.config.section import Section
from fedcore.errors import DataError, NotFound
from fedcore.imports.reasons import remedy
from fedcore.store.api import Store

_ROOT = "derivatives/fedcore/"
IMPORTED, QUARANTINE = f"{_ROOT}import/", f"{_ROOT}quarantine/"
SECRET_CHECK = f"{_ROOT}import-secret"

What = Literal["used", "surplus", "skipped", "quarantined"]


class Outcome(Section):
    """What became of one series or mask, and why.

    ``used``: it is ``files`` now. ``surplus``: another series of the modality is used. ``skipped``:
    the rules do not want it. ``quarantined``: it was wanted and cannot be used.
    """

    series: str
    what: What
    modality: str | None = None
    reason: str | None = None
    sentence: str | None = None
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    shape: tuple[int, int, int] | None = None
    affine: list[list[float]] | None = None


class Record(Section):
    """A study. ``date`` is shifted; ``fingerprint``, ``content`` and ``rules``: of what it came."""

    subject: str
    session: str
    study: str
    date: str | None = None
    sex: str
    age: str
    scanner: str
    fingerprint: str
    content: str
    rules: str
    version: str
    outcomes: list[Outcome]

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"{IMPORTED}{self.study}.json"

    def used(self) -> list[Outcome]:
        """Its images."""
        return [outcome for outcome in self.outcomes if outcome.what == "used"]


def every(store: Store) -> Iterator[Record]:
    """The records of all studies. Raises DataError for one that is none."""
    for key in list(store.list(IMPORTED)):
        yield read(store, key)


def find(store: Store, study: str) -> Record | None:
    """The record of a study, if there is one."""
    try:
        return read(store, f"{IMPORTED}{study}.json")
    except NotFound:
        return None


def read(store: Store, key: str) -> Record:
    """Raises NotFound, and DataError for what is no record."""
    data = store.get(key)
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{key} is not the record of a study: delete it, and import again"
        ) from error


def encode(record: Record) -> bytes:
    """As it is stored: equal records, equal bytes."""
    return as_json(record.model_dump(mode="json", exclude_none=True))


def quarantine(record: Record) -> tuple[str, bytes | None]:
    """The study's entry in quarantine: its key, and its bytes, or None if nothing is wrong."""
    key = f"{QUARANTINE}{record.subject}_{record.study}.json"
    items = [
        {"series": outcome.series, "modality": outcome.modality, "reason": outcome.reason,
         "sentence": outcome.sentence, "remedy": remedy(outcome.reason or "")}
        for outcome in record.outcomes if outcome.what == "quarantined"
    ]  # fmt: skip
    if not items:
        return key, None
    return key, as_json({"subject": record.subject, "study": record.study, "items": items})


def as_json(value: object) -> bytes:
    """Readable, and the same for equal values."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def put_if_new(store: Store, key: str, data: bytes) -> bool:
    """Write unless the same bytes are there; whether anything changed."""
    try:
        if store.get(key) == data:
            return False
    except NotFound:
        pass
    store.put(key, data)
    return True
