"""Consent, checked where the data is read: without it a subject never becomes an example.

A site records in a column of ``participants.tsv`` the purposes that each subject consented to,
separated by spaces or semicolons. ``n/a`` is a withdrawal, an empty cell is no consent. The words
are those of a plan's ``purpose`` and are compared exactly.
"""

from __future__ import annotations

from collections.abc import Collection

from fedcore.errors import DataError

WITHDRAWN = "n/a"


def objection(recorded: str, purpose: str) -> str | None:
    """Why a subject with this entry may not be used for ``purpose``, or None. It may be counted.

    >>> objection("dementia-research; brain-tumour-research", "brain-tumour-research")
    >>> objection("dementia-research", "brain-tumour-research")
    'no consent for this purpose'
    >>> objection("n/a", "brain-tumour-research")
    'consent withdrawn'
    """
    purposes = recorded.replace(";", " ").split()
    if WITHDRAWN in purposes:
        return "consent withdrawn"
    return None if purpose in purposes else "no consent for this purpose"


def require_column(columns: Collection[str], column: str, *, source: str) -> None:
    """Raises DataError if ``source`` has no such column: then nobody is recorded as consenting."""
    if column not in columns:
        raise DataError(
            f"{source} has no column {column!r}, so nobody is recorded as having consented; add "
            "it with the purposes that each subject consented to, or, where consent is checked "
            "before data comes here, set consent_column: null in the plan's dataset arguments",
            reason="no consent is recorded",
        )
