"""The site's egress record, in the site's own bucket: what left, when, for what, and under which
protection.

    derivatives/fedcore/egress/<number>.json     write-once, numbered from 1 without a gap

An entry is written before anything leaves. Each holds the SHA-256 of the one before and is signed
by the site's identity, where there is one: an entry that was changed, removed or moved breaks the
chain there (``check``). Entries cut off the end leave a sound chain; but each signed reply carries
the hash of the last entry before it, so that the server's copy of a reply bears witness.

It also keeps a site from saying two things in one place: what a killed client noted and did not
send is sent again if it is the same, and refused if it is not. A second masked input under the
same masks would show the difference of both.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedcore.errors import OrderRefused
from fedcore.store.api import Store
from fedcore.store.envelope import public_text
from fedcore.store.exchange import grants
from fedcore.store.identity import NO_HEAD, egress_head

_FOLDER = "derivatives/fedcore/egress/"
_DOMAIN = b"fedcore egress 1\n"
REFUSAL = "Refusal"


@dataclass(frozen=True)
class Departure:
    """What is about to leave.

    ``kind``: a reply's, or the step of a secure round. ``destination``: its key in the exchange.
    ``sha256``: of the bytes as they leave. ``content``: of what they say, which is the same when a
    client says it again (only how long it took differs). ``protection``: plain, masked, encrypted,
    several joined by +, or none where no value of the site's data is in it. ``epsilon``: what the
    plan's noise amounts to by then. Unset: there is none, or it is not known.
    """

    run_id: str
    seq: int
    kind: str
    destination: str
    bytes: int
    sha256: str
    content: str
    protection: str = "none"
    round_num: int | None = None
    plan_digest: str | None = None
    purpose: str | None = None
    clip_norm: float | None = None
    update_norm: float | None = None
    noise_multiplier: float | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Entry(Departure):
    """``when`` is the site's clock, in UTC. ``previous``: SHA-256 of the entry before, in hex."""

    number: int = 0
    when: str = ""
    previous: str = ""
    approver: str | None = None


class Checked(NamedTuple):
    """The sound entries, from the first on; which keys signed them; and what ends them, if not
    the end. ``heads``: the hash of each entry."""

    entries: list[Entry]
    signers: set[str]
    heads: list[str]
    fault: str | None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    entry: str
    identity: str | None
    signature: str | None


_ENTRY = TypeAdapter(Entry)


class Egress:
    """One client's hand on the record. Others may write to it at the same time.

    ``approver``: who approved the site's policy.
    """

    def __init__(
        self,
        store: Store,
        identity: Ed25519PrivateKey | None = None,
        approver: str | None = None,
    ) -> None:
        self._store = store
        self._identity = identity
        self._approver = approver
        self._next: int | None = None  # until the end was looked for
        self._head = NO_HEAD.hex()
        self._since = 0
        self._noted: dict[str, Entry] = {}

    def end(self) -> int:
        """The number that the next entry gets. The bucket is listed for it once."""
        if self._next is None:
            numbers = [_number(key) for key in self._store.list(_FOLDER)]
            self._next = self._since = max(numbers, default=0) + 1
            if numbers:
                self._head = _hash(self._store.get(_key(self._next - 1)))
        return self._next

    def recall(self, since: int) -> None:
        """Know what was noted from entry ``since`` on, by whichever client."""
        self.end()
        for number in range(since, self._since):
            self._remember(self._store.get(_key(number)))
        self._since = min(self._since, since)

    def noted(self, destination: str) -> Entry | None:
        """What is known to have been noted for that place; of several, the last."""
        return self._noted.get(destination)

    @property
    def head(self) -> bytes:
        """The hash of the last entry that is known."""
        self.end()
        return bytes.fromhex(self._head)

    def note(self, departure: Departure) -> None:
        """Write the entry; only then may it leave.

        Raises OrderRefused if something else was noted for this place before: nothing may leave.
        A refusal says nothing of the data, and stands beside anything.
        """
        number = self.end()
        while True:
            self._check(departure)
            data = self._sealed(departure, number)
            if self._store.create(_key(number), data):
                break
            there = self._store.get(_key(number))  # another client's, or the answer was lost
            self._advance(number, there)
            if there == data:
                return
            number += 1
        self._advance(number, data)

    def _check(self, departure: Departure) -> None:
        before = self._noted.get(departure.destination)
        if before is None or REFUSAL in (before.kind, departure.kind):
            return
        if before.content != departure.content:
            raise OrderRefused(
                f"something else was about to leave for {departure.destination} before (egress "
                f"record, entry {before.number}): a site says one thing in one place"
            )

    def _sealed(self, departure: Departure, number: int) -> bytes:
        entry = Entry(
            **asdict(departure),
            number=number,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            previous=self._head,
            approver=self._approver,
        )
        text = json.dumps(asdict(entry), sort_keys=True)
        public = signature = None
        if self._identity is not None:
            public = public_text(self._identity)
            signature = base64.b64encode(self._identity.sign(_DOMAIN + text.encode())).decode()
        return json.dumps({"entry": text, "identity": public, "signature": signature}).encode()

    def _advance(self, number: int, data: bytes) -> None:
        self._next, self._head = number + 1, _hash(data)
        self._remember(data)

    def _remember(self, data: bytes) -> None:
        try:
            entry, _ = _read(data)
        except ValueError as error:
            raise OrderRefused(
                f"the egress record is broken: {error}; see `fedcore ledger egress`"
            ) from error
        known = self._noted.get(entry.destination)
        # A refusal says nothing that what was said beside it would have to agree with.
        if known is None or (entry.kind != REFUSAL, entry.number) > (
            known.kind != REFUSAL,
            known.number,
        ):
            self._noted[entry.destination] = entry


def check(store: Store, accepted: Iterable[str] | None = None) -> Checked:
    """Read the record from its first entry on, up to its end or to what is wrong with it.

    ``accepted``: public identities that may have signed; unset, whoever did is reported.
    """
    wanted = None if accepted is None else set(accepted)
    entries: list[Entry] = []
    signers: set[str] = set()
    heads: list[str] = []
    previous = NO_HEAD.hex()
    for number, key in enumerate(_keys(store), start=1):
        try:
            if _number(key) != number:
                raise ValueError("it was removed")
            data = store.get(key)
            entry, signer = _read(data)
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


def witnessed(exchange: Store, site: str, run_id: str) -> list[str]:
    """The heads of a site's record that its signed replies to its last order in a run carry."""
    prefix = f"{grants(site).write[0]}{run_id}/"
    keys = [key for key in exchange.list(prefix) if key.endswith(".safetensors")]
    numbers = [key.removeprefix(prefix).split(".")[0] for key in keys]
    last = [key for key, number in zip(keys, numbers, strict=True) if number == max(numbers)]
    heads = (egress_head(exchange.get(key)) for key in last)
    return [head.hex() for head in heads if head != NO_HEAD]


def _read(data: bytes) -> tuple[Entry, str | None]:
    """The entry, and who signed it. Raises ValueError that says what is wrong."""
    try:
        file = _File.model_validate_json(data)
        entry = _ENTRY.validate_json(file.entry)
    except ValidationError as error:
        raise ValueError("it is no entry of an egress record") from error
    if file.identity is None or file.signature is None:
        return entry, None
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(file.identity, validate=True))
        signature = base64.b64decode(file.signature, validate=True)
        key.verify(signature, _DOMAIN + file.entry.encode())
    except (InvalidSignature, ValueError) as error:
        raise ValueError("it was changed after it was signed") from error
    return entry, file.identity


def _keys(store: Store) -> Iterator[str]:
    return iter(sorted(store.list(_FOLDER)))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(number: int) -> str:
    return f"{_FOLDER}{number:010d}.json"


def _number(key: str) -> int:
    """The number in an entry's key; 0 for what is no entry's."""
    name = key.removeprefix(_FOLDER).removesuffix(".json")
    return int(name) if name.isdecimal() else 0
