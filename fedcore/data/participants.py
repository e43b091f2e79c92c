"""``participants.tsv``: who the site's subjects are, their groups, and the split each is in.

Format: https://bids-specification.readthedocs.io/en/stable/modality-agnostic-files/data-summary-files.html
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fedcore.errors import ConfigError, DataError
from fedcore.records import Split

SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
UNKNOWN = "unknown"
ID = "participant_id"
SYNTHETIC = "synthetic"
"""The column that says ``true`` of a subject who does not exist."""

_AGE_BAND = "age_band"
_MISSING = ("", "n/a")


@dataclass(frozen=True)
class Participants:
    """The table's columns and rows, without the rows whose subject is listed more than once.

    ``rows``: subject (``sub-…``) → column → cell. ``ambiguous``: the subjects that were dropped.
    """

    source: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    ambiguous: frozenset[str]

    def require(self, column: str, use: str) -> None:
        """Raises DataError if there is no such column; ``use`` says what it is wanted for."""
        if column not in self.columns:
            raise DataError(
                f"{self.source} has no column {column!r}, {use}; it has "
                f"{', '.join(self.columns)}: add the column, or name another in the plan",
                reason=f"participants.tsv has no column {column!r}",
            )


def read(data: bytes, *, source: str) -> Participants:
    """The table in these bytes; ``source`` names it in errors. Raises DataError if it is none."""
    try:
        text = data.decode("utf-8-sig")
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE, restval=""
        )
        lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{source} is not a UTF-8 table with tabs: {error}", reason="bad participants.tsv"
        ) from error
    columns = tuple(reader.fieldnames or ())
    rows: dict[str, dict[str, str]] = {}
    ambiguous = set()
    for line in lines:
        row = {column: (line[column] or "").strip() for column in columns}
        subject = row.get(ID, "")
        if subject in rows:
            ambiguous.add(subject)
        rows[subject] = row
    kept = {subject: row for subject, row in rows.items() if subject not in ambiguous}
    table = Participants(source, columns, kept, frozenset(ambiguous))
    table.require(ID, "which names the subjects")
    return table


def value(row: Mapping[str, str], column: str) -> str | None:
    """The cell, or None where BIDS says that it is missing (empty or ``n/a``)."""
    cell = row[column]
    return None if cell in _MISSING else cell


def is_synthetic(row: Mapping[str, str]) -> bool:
    """Whether this is nobody, but drawn from a model (``fedcore.data.synthetic``).

    >>> is_synthetic({"synthetic": "true"}), is_synthetic({"synthetic": "n/a"}), is_synthetic({})
    (True, False, False)
    """
    return row.get(SYNTHETIC, "").lower() == "true"


def require_groups(table: Participants, attributes: Collection[str]) -> None:
    """Raises DataError if an attribute of the plan's ``task.groups`` has no column."""
    for attribute in attributes:
        column = "age" if attribute == _AGE_BAND else attribute
        table.require(column, f"which task.groups needs for {attribute!r}")


def groups(row: Mapping[str, str], attributes: Collection[str]) -> dict[str, str]:
    """Attribute → the subject's group, "unknown" where the cell is missing.

    >>> groups({"sex": "F", "age": "47"}, ["sex", "age_band"])
    {'sex': 'F', 'age_band': '40-60'}
    """
    return {
        name: age_band(row["age"]) if name == _AGE_BAND else value(row, name) or UNKNOWN
        for name in attributes
    }


def age_band(age: str) -> str:
    """Years → band; 40 and 60 are in the middle one. BIDS writes ages above 89 as ``89+``.

    >>> [age_band(age) for age in ("39.5", "40", "60", "89+", "n/a")]
    ['<40', '40-60', '40-60', '>60', 'unknown']
    """
    try:
        years = float(age.removesuffix("+"))
    except ValueError:
        return UNKNOWN
    if not math.isfinite(years) or years < 0:
        return UNKNOWN
    return "<40" if years < 40 else "40-60" if years <= 60 else ">60"


def split_of(subject: str, fractions: Sequence[float]) -> Split:
    """The split of a subject, from its id alone: it never moves, whoever joins or leaves.

    SHA-256 of the id, read as a number in [0, 1), falls into one of three intervals of the lengths
    ``fractions`` (train, validation, test). Shares are therefore met on average, not exactly, and
    not by class.

    >>> split_of("sub-001", (0.6, 0.15, 0.25)), split_of("sub-001", (0.0, 0.0, 1.0))
    ('train', 'test')
    """
    position = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") / 2**64
    train, validation, _ = fractions
    return SPLITS[(position >= train) + (position >= train + validation)]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ConfigError unless these are three shares of one."""
    if (
        len(fractions) != len(SPLITS)
        or min(fractions) < 0
        or not math.isclose(sum(fractions), 1.0, abs_tol=1e-9)
    ):
        raise ConfigError(
            f"dataset argument fractions: {list(fractions)}; give the shares of train, "
            "validation and test, which add up to 1, e.g. [0.6, 0.15, 0.25]"
        )
