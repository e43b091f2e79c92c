"""Calls to sites that start their own clients: what the server wants, and what the agent says.

    orders/<site>/calls.json                 server replaces, this site reads; signed
    replies/<site>/<run>/<seq>.client.json   the site's agent writes: how its client is

A call only says where an order waits. The order itself is signed and checked as always, so that a
call that is old, or copied, can start a client and nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import TypeAdapter, ValidationError

from fedcore.errors import NotFound, OrderRefused
from fedcore.records import ClientStatus
from fedcore.store import envelope
from fedcore.store.api import Store

Wanted = dict[str, int]
"""Run → the first order that waits for a client."""

_WANTED = TypeAdapter(Wanted)
_STATUS = TypeAdapter(ClientStatus)
_MAX_BYTES = 1 << 20


class Calls:
    """Both sides' access to the calls, in the exchange bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def call(self, site: str, run_id: str, seq: int, key: Ed25519PrivateKey) -> None:
        """Ask for a client that answers order ``seq`` of the run."""
        self._edit(site, key, lambda wanted: {**wanted, run_id: seq})

    def withdraw(self, site: str, run_id: str, key: Ed25519PrivateKey) -> None:
        """Ask for none any more; one that is there is to be ended."""
        self._edit(site, key, lambda wanted: {r: s for r, s in wanted.items() if r != run_id})

    def wanted(self, site: str, key: Ed25519PublicKey) -> Wanted:
        """What is asked of ``site`` now. Raises OrderRefused if the server did not sign it."""
        try:
            data = self._store.get(_calls_key(site), max_bytes=_MAX_BYTES)
        except NotFound:
            return {}
        return _read(data, site, key)

    def say(self, site: str, run_id: str, seq: int, status: ClientStatus) -> None:
        """The agent: how the client is that was asked for."""
        self._store.put(_status_key(site, run_id, seq), json.dumps(asdict(status)).encode())

    def said(self, site: str, run_id: str, seq: int) -> ClientStatus | None:
        """What the agent said last; None if nothing, or nothing that can be read."""
        try:
            data = self._store.get(_status_key(site, run_id, seq), max_bytes=_MAX_BYTES)
            return _STATUS.validate_json(data)
        except (NotFound, ValidationError):
            return None

    def _edit(self, site: str, key: Ed25519PrivateKey, change: Callable[[Wanted], Wanted]) -> None:
        """Change what is wanted, whoever else changes it at the same time."""
        place = _calls_key(site)
        while True:
            try:
                found = self._store.get_versioned(place)
            except NotFound:
                if self._store.create(place, _seal(site, change({}), key)):
                    return
                continue
            before = _read(found.data, site, key.public_key())
            after = change(before)
            if after == before:
                return
            if self._store.replace(place, _seal(site, after, key), found.version):
                return


def _seal(site: str, wanted: Wanted, key: Ed25519PrivateKey) -> bytes:
    payload = {"kind": "calls", "site": site, "wanted": wanted}
    return envelope.seal(json.dumps(payload, sort_keys=True).encode(), key)


def _read(data: bytes, site: str, key: Ed25519PublicKey) -> Wanted:
    payload = json.loads(envelope.unseal(data, key))
    if payload.get("kind") != "calls" or payload.get("site") != site:
        raise OrderRefused(f"what lies at {_calls_key(site)} is no call to site {site!r}")
    return _WANTED.validate_python(payload["wanted"])


def _calls_key(site: str) -> str:
    return f"orders/{site}/calls.json"


def _status_key(site: str, run_id: str, seq: int) -> str:
    return f"replies/{site}/{run_id}/{seq:06d}.client.json"
