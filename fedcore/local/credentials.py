"""The stack's credentials, and what each may do, in the form of SeaweedFS's static identities."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedcore.errors import ConfigError
from fedcore.store.exchange import grants

ADMIN = "admin"
SERVER = "server"
EXCHANGE = "fedcore-exchange"


class Credential(NamedTuple):
    """What an S3 service knows a caller by."""

    access_key: str
    secret_key: str


def site_bucket(site: str) -> str:
    """The bucket of the site's own data."""
    return f"fedcore-site-{site}"


def keep(path: Path, sites: Sequence[str]) -> dict[str, Credential]:
    """The credentials in ``path``, which only its owner may read; those that are missing are made.

    Raises ConfigError if a site has the name of one of the stack's own identities.
    """
    reserved = sorted({ADMIN, SERVER} & set(sites))
    if reserved:
        raise ConfigError(
            f"a site of the embedded stack cannot be named {reserved[0]!r}; rename it"
        )
    known = json.loads(path.read_text()) if path.exists() else {}
    names = [ADMIN, SERVER, *sites]
    credentials = {name: Credential(*known.get(name, ())) if name in known else _new()
                   for name in names}  # fmt: skip
    write_private(path, json.dumps({**known, **credentials}, indent=1))
    return credentials


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def identities(credentials: dict[str, Credential]) -> dict[str, Any]:
    """The ``-s3.config`` of these credentials. There is none for callers without a credential."""
    return {
        "identities": [
            {
                "name": name,
                "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
                "actions": _actions(name),
            }
            for name, keys in credentials.items()
        ]
    }


def _actions(name: str) -> list[str]:
    if name == ADMIN:
        return ["Admin"]
    if name == SERVER:
        return _everything(EXCHANGE)
    granted = grants(name)
    reads = [f"Read:{EXCHANGE}/{prefix}*" for prefix in granted.read]
    writes = [f"Write:{EXCHANGE}/{prefix}*" for prefix in granted.write]
    return [*_everything(site_bucket(name)), *reads, *writes]


def _everything(bucket: str) -> list[str]:
    return [f"{action}:{bucket}" for action in ("Read", "Write", "List")]


def _new() -> Credential:
    return Credential(secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
