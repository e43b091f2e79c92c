"""The site's own secret, and all that is derived from it: pseudonyms, UIDs, shifted dates.

Everything is HMAC-SHA256 of a word for the use and the original: equal input, equal output, so that
studies of a patient stay together across imports; without the file nobody can tell whose they are.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from fedcore.errors import ConfigError

_BYTES = 32
_SUBJECT_DIGITS = 12  # 48 bits: among 100,000 patients two share one with a chance of 1 in 56,000
_BACK_DAYS = 73050  # 200 years: BIDS takes dates before 1925 for shifted ones
_SPREAD_DAYS = 3650


@dataclass(frozen=True)
class Secret:
    """A key that never leaves the site. Its repr does not show it."""

    key: bytes = field(repr=False)

    def subject(self, patient: str) -> str:
        """The pseudonym of a patient id.

        >>> Secret(b"a" * 32).subject("4711 ") == Secret(b"a" * 32).subject("4711")
        True
        >>> Secret(b"a" * 32).subject("4711")
        'sub-f8c47b849684'
        """
        return f"sub-{self.tag('subject', patient.strip())[:_SUBJECT_DIGITS]}"

    def uid(self, original: str) -> str:
        """A UID that stands for ``original`` (PS3.5 B.2)."""
        return f"2.25.{int.from_bytes(self._mac('uid', original.strip())[:16])}"

    def shifted(self, date: datetime.date, patient: str) -> datetime.date:
        """``date``, some 200 years earlier, by a number of days that is the patient's own.

        Intervals within a patient stay, across patients they mean nothing.
        """
        share = int.from_bytes(self._mac("days", patient.strip())[:4]) % _SPREAD_DAYS
        return date - datetime.timedelta(days=_BACK_DAYS + share)

    def tag(self, use: str, text: str) -> str:
        """64 hex digits that stand for ``text`` in this ``use``."""
        return self._mac(use, text).hex()

    def _mac(self, use: str, text: str) -> bytes:
        return hmac.digest(self.key, f"{use}\0{text}".encode(), hashlib.sha256)


def load(path: Path) -> Secret:
    """The secret in ``path``; made there, readable by its owner alone, if there is no such file.

    Raises ConfigError if others can read the file, or if it holds no secret.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"the site's secret cannot be made: {path}: {error.strerror}") from error
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others can read the site's secret; chmod 600 it")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the site's secret cannot be read: {error}") from error
    if len(key) < _BYTES:
        raise ConfigError(f"{path}: {len(key)} bytes are no secret; {_BYTES} are wanted, as hex")
    return Secret(key)
