"""A record in the site's own bucket that only ever grows, and in which every change shows.

    <folder><number>.json     write-once, numbered from 1 without a gap

Each entry holds the SHA-256 of the one before and is signed by the site's identity, where there is
one: an entry that was changed, removed or moved breaks the chain there (``check``). Entries cut
off the end leave a sound chain; whoever keeps the hash of a later entry can tell.

Several clients may write at the same time: a number is taken by whoever creates its object first,
and the other sees what it says before it tries the next.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedcore.errors import OrderRefused
from fedcore.store.api import Store
from fedcore.store.envelope import public_text
from fedcore.store.identity import NO_HEAD


@dataclass(frozen=True, kw_only=True)
class Link:
    """What every entry holds. ``when``: the site's clock, in UTC. ``previous``: SHA-256 of the
    entry before, in hex. ``approver``: who approved the site's policy."""

    number: int = 0
    when: str = ""
    previous: str = ""
    approver: str | None = None


E = TypeVar("E", bound=Link)


@dataclass(frozen=True)
class Kind(Generic[E]):
    """Which record: its name, its folder, what an entry is, and the command that shows it.

    ``domain`` goes before what is signed: no signature passes for one in another record.
    """

    name: str
    folder: str
    entry: type[E]
    domain: bytes
    command: str

    @cached_property
    def _adapter(self) -> TypeAdapter[E]:
        return TypeAdapter(self.entry)

    def key(self, number: int) -> str:
        """Where an entry lies."""
        return f"{self.folder}{number:010d}.json"

    def number(self, key: str) -> int:
        """The number in an entry's key; 0 for what is no entry's."""
        name = key.removeprefix(self.folder).removesuffix(".json")
        return int(name) if name.isdecimal() else 0

    def read(self, data: bytes) -> tuple[E, str | None]:
        """The entry, and who signed it. Raises ValueError that says what is wrong."""
        try:
            file = _File.model_validate_json(data)
            entry = self._adapter.validate_json(file.entry)
        except ValidationError as error:
            raise ValueError("it is no entry of such a record") from error
        if file.identity is None or file.signature is None:
            return entry, None
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(file.identity, validate=True))
            signature = base64.b64decode(file.signature, validate=True)
            key.verify(signature, self.domain + file.entry.encode())
        except (InvalidSignature, ValueError) as error:
            raise ValueError("it was changed after it was signed") from error
        return entry, file.identity

    def write(self, entry: E, identity: Ed25519PrivateKey | None) -> bytes:
        """The entry's object."""
        text = json.dumps(asdict(entry), sort_keys=True)
        public = signature = None
        if identity is not None:
            public = public_text(identity)
            signature = base64.b64encode(identity.sign(self.domain + text.encode())).decode()
        return json.dumps({"entry": text, "identity": public, "signature": signature}).encode()


@dataclass(frozen=True)
class Checked(Generic[E]):
    """The sound entries, from the first on; which keys signed them; and what ends them, if not
    the end. ``heads``: the hash of each entry."""

    entries: list[E]
    signers: set[str]
    heads: list[str]
    fault: str | None


class Chain(Generic[E]):
    """One client's hand on a record. Others may write to it at the same time."""

    def __init__(self, store: Store, kind: Kind[E], identity: Ed25519PrivateKey | None) -> None:
        self._store = store
        self._kind = kind
        self._identity = identity
        self._next: int | None = None  # until the end was looked for
        self._head = NO_HEAD.hex()

    def end(self) -> int:
        """The number that the next entry gets. The bucket is listed for it once."""
        if self._next is None:
            numbers = [self._kind.number(key) for key in self._store.list(self._kind.folder)]
            self._next = max(numbers, default=0) + 1
            if numbers:
                self._head = _hash(self._store.get(self._kind.key(self._next - 1)))
        return self._next

    @property
    def head(self) -> str:
        """The hash, in hex, of the last entry that is known."""
        self.end()
        return self._head

    def load(self) -> Checked[E]:
        """Everything that is there, checked. Raises OrderRefused if it is not sound."""
        checked = check(self._store, self._kind)
        if checked.fault is not None:
            raise self._broken(checked.fault)
        self._next = len(checked.entries) + 1
        self._head = checked.heads[-1] if checked.heads else NO_HEAD.hex()
        return checked

    def read(self, number: int) -> E:
        """One entry. Raises OrderRefused if it is none."""
        return self._read(self._store.get(self._kind.key(number)))

    def append(self, entry: E) -> tuple[E, bool]:
        """Try to write the entry at the end: what is there now, and whether it is this one.

        If not, another client was there first; what it wrote is the end now.
        """
        number = self.end()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = replace(entry, number=number, when=now, previous=self._head)
        data = self._kind.write(entry, self._identity)
        key = self._kind.key(number)
        if not self._store.create(key, data):
            there = self._store.get(key)  # another client's, or the answer was lost
            if there != data:
                entry, data = self._read(there), there
                self._next, self._head = number + 1, _hash(data)
                return entry, False
        self._next, self._head = number + 1, _hash(data)
        return entry, True

    def _read(self, data: bytes) -> E:
        try:
            return self._kind.read(data)[0]
        except ValueError as error:
            raise self._broken(str(error)) from error

    def _broken(self, fault: str) -> OrderRefused:
        return OrderRefused(f"the {self._kind.name} is broken: {fault}; see `{self._kind.command}`")


def check(store: Store, kind: Kind[E], accepted: Iterable[str] | None = None) -> Checked[E]:
    """Read a record from its first entry on, up to its end or to what is wrong with it.

    ``accepted``: public identities that may have signed; unset, whoever did is reported.
    """
    wanted = None if accepted is None else set(accepted)
    entries: list[E] = []
    signers: set[str] = set()
    heads: list[str] = []
    previous = NO_HEAD.hex()
    for number, key in enumerate(sorted(store.list(kind.folder)), start=1):
        try:
            if kind.number(key) != number:
                raise ValueError("it was removed")
            data = store.get(key)
            entry, signer = kind.read(data)
            if entry.number != number:
                raise ValueError(f"it is entry {entry.number}, moved")
            if entry.previous != previous:
                raise ValueError("it does not follow from the one before")
            if signer is None and (signers or wanted is not None):
                raise ValueError("it is not signed")
            if signer is not None and wanted is not None and signer not in wanted:
                raise ValueError(f"it is signed by {signer}, which is no identity of the site")
        except ValueError as error:
            return Checked(entries, signers, heads, f"entry {number}: {error}")
        previous = _hash(data)
        heads.append(previous)
        entries.append(entry)
        signers |= {signer} if signer is not None else set()
    return Checked(entries, signers, heads, None)


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    entry: str
    identity: str | None
    signature: str | None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
