"""``participants.tsv``: a subject's row is its commit. Readers take no notice of one without.

A row follows from the subject's records and the site's own list (diagnosis, consent): written at
any time, by whomever, it is the same. Other rows and columns stay as they are.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedcore.data import participants
from fedcore.errors import ConfigError, Conflict, NotFound
from fedcore.imports.records import Record
from fedcore.imports.secret import Secret
from fedcore.store.api import Store

KEY = "participants.tsv"
COLUMNS = (participants.ID, "sex", "age", "scanner", "diagnosis", "consent")
_FROM_LIST = ("diagnosis", "consent", "sex", "age")
_PATIENT = ("patient_id", "patientid", "patient id", "patient", "id")
_TRIES = 5

Row = Mapping[str, str]
People = Mapping[str, Row]
"""Subject → what the site's own list says of it."""


def people(path: Path | None, secret: Secret, further: Sequence[str]) -> People:
    """The site's list (CSV; comma, semicolon or tab), by pseudonym: its columns that may be kept.

    Raises ConfigError for a file that is no such list, or that names a patient twice.
    """
    if path is None:
        return {}
    try:
        text = path.read_text("utf-8-sig")
        first = text.partition("\n")[0]
        separator = max(",;\t", key=first.count)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
        columns = {name.strip().lower(): name for name in rows[0]} if rows else {}
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise ConfigError(f"{path}: not a UTF-8 table: {error}") from error
    key = next((columns[name] for name in _PATIENT if name in columns), None)
    if key is None:
        raise ConfigError(f"{path}: no column patient_id; it has {', '.join(columns) or 'no rows'}")
    kept = [name for name in (*_FROM_LIST, *further) if name.lower() in columns]
    found: dict[str, Row] = {}
    for line, row in enumerate(rows, start=2):
        subject = secret.subject(row[key] or "")
        if subject in found:
            raise ConfigError(f"{path}:{line}: the patient is listed twice")
        found[subject] = {name: _cell(row[columns[name.lower()]]) for name in kept}
    return found


def rows(records: Iterable[Record], listed: People) -> dict[str, dict[str, str]]:
    """Subject → its cells, of every subject that has an image."""
    by_subject = defaultdict(list)
    for record in records:
        if record.used():
            by_subject[record.subject].append(record)
    made = {}
    for subject, theirs in by_subject.items():
        ordered = sorted(theirs, key=lambda record: (record.date or "9999", record.study))
        row = {name: _first(ordered, name) for name in ("sex", "age", "scanner")}
        said = {name: cell for name, cell in listed.get(subject, {}).items()
                if cell or name == "consent"}  # fmt: skip
        made[subject] = row | said
    return made


def commit(store: Store, made: Mapping[str, Row]) -> bool:
    """Put these rows into the table; whether that changed it. Raises Conflict after some tries."""
    for _ in range(_TRIES):
        try:
            data, version = store.get_versioned(KEY)
        except NotFound:
            data, version = None, None
        new = _merged(data, made)
        if new == data or (data is None and not made):
            return False
        if version is None and store.create(KEY, new):
            return True
        if version is not None and store.replace(KEY, new, version):
            return True
    raise Conflict(f"{KEY} is being written by somebody else: end the other import, then go on")


def _merged(data: bytes | None, made: Mapping[str, Row]) -> bytes:
    columns, known = list(COLUMNS), {}
    if data is not None:
        table = participants.read(data, source=KEY)
        columns = list(dict.fromkeys((*table.columns, *COLUMNS)))
        known = {subject: dict(row) for subject, row in table.rows.items()}
    columns = list(dict.fromkeys((*columns, *(name for row in made.values() for name in row))))
    for subject, row in made.items():
        known[subject] = {"diagnosis": "n/a", "consent": ""} | known.get(subject, {}) | dict(row)
    lines = [columns] + [
        [subject, *(known[subject].get(name, "n/a") for name in columns if name != participants.ID)]
        for subject in sorted(known)
    ]
    return "".join("\t".join(line) + "\n" for line in lines).encode()


def _first(records: Sequence[Record], name: str) -> str:
    values = (getattr(record, name) for record in records)
    return next((value for value in values if value != "n/a"), "n/a")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split())
