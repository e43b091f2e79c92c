"""What a human said about doubtful images: a table in the site's folder, to be filled in there.

``derivatives/fedcore/alignment.tsv`` lists them. Into the column ``verdict`` goes ``accept`` (use
it as aligned), ``as_scanned`` (where the scanner says that it is) or ``reject``. A verdict is on
the two files that it was given on (``pair``): when one of them changes, the image is doubtful anew.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import get_args

from fedcore.data.preparation import Doubt, Verdict
from fedcore.data.site import Files
from fedcore.errors import DataError, NotFound

TABLE = "derivatives/fedcore/alignment.tsv"
COLUMNS = ("participant_id", "modality", "pair", "verdict", "concerns")

Verdicts = dict[str, dict[str, tuple[str, Verdict]]]
"""Subject → modality → (pair, verdict)."""


def read(files: Files, root: str) -> Verdicts:
    """All that was said. Empty without a table. Raises DataError that names the line."""
    key = root + TABLE
    try:
        text = files.get(key).decode("utf-8-sig")
    except NotFound:
        return {}
    except UnicodeDecodeError as error:
        raise DataError(f"{key} is not UTF-8: save it as that", reason="verdicts") from error
    table = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = set(COLUMNS) - {"concerns"} - set(table.fieldnames or ())
    if missing:
        raise DataError(f"{key} has no column {', '.join(sorted(missing))}", reason="verdicts")
    known: Verdicts = {}
    for number, row in enumerate(table, start=2):
        said = (row["verdict"] or "").strip()
        if not said or said == "n/a":
            continue
        verdict = next((word for word in get_args(Verdict) if word == said), None)
        if verdict is None:
            raise DataError(
                f"{key} line {number}: verdict {said!r}; write accept, as_scanned or reject",
                reason="verdicts",
            )
        known.setdefault(row["participant_id"], {})[row["modality"]] = (row["pair"], verdict)
    return known


def table(doubts: Sequence[tuple[str, Doubt]], known: Verdicts) -> bytes:
    """The table of (subject, doubt), and of what else was said: of another plan, say."""
    listed = {(subject, doubt.modality, doubt.pair) for subject, doubt in doubts}
    rows = [
        (subject, doubt.modality, doubt.pair, doubt.verdict or "n/a", "; ".join(doubt.concerns))
        for subject, doubt in doubts
    ]
    rows += [
        (subject, modality, pair, verdict, "n/a")
        for subject, said in known.items()
        for modality, (pair, verdict) in said.items()
        if (subject, modality, pair) not in listed
    ]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
    writer.writerows([COLUMNS, *sorted(rows)])
    return text.getvalue().encode()
