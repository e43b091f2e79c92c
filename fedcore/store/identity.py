"""A site's identity: an Ed25519 key (RFC 8032) that its replies are signed with.

The private half is at the site alone. The server's federation file and the other sites' policies
list the public halves they accept, more than one while a site changes its key. What is revoked
counts nowhere, whoever lists or endorses it.

A signed reply is a frame of 136 bytes before the blob:

    magic (8) ‖ public key (32) ‖ head of the site's egress record (32) ‖ signature (64) ‖ blob

and the signature is over domain ‖ head ‖ SHA-256 of the blob, so that it is checked before
anything is parsed. Run, site, place and order are in the blob's header.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcore.errors import ConfigError, UpdateRejected
from fedcore.store.envelope import public_key, public_text

_MAGIC = b"fedsign1"
_REPLY = b"fedcore reply 1\n"  # one domain a kind: no signature can pass for one of another kind
_ROTATION = b"fedcore rotation 1\n"
_KEY, _HEAD, _SIGNATURE = 32, 32, 64
FRAME = len(_MAGIC) + _KEY + _HEAD + _SIGNATURE

NO_HEAD = bytes(_HEAD)
"""The head of an egress record in which there is nothing yet, or of which nothing is told."""


@dataclass(frozen=True)
class Roll:
    """Whose identities are accepted for which site, and which are revoked.

    A site without any is not asked for a signature.
    """

    accepted: Mapping[str, Sequence[Ed25519PublicKey]] = field(default_factory=dict)
    revoked: frozenset[bytes] = frozenset()


def roll(
    identities: Mapping[str, Iterable[str]],
    revoked: Iterable[str] = (),
    rotations: Iterable[str] = (),
) -> Roll:
    """The roll that a federation or policy file lists, in base64.

    A rotation makes a new key accepted wherever the old one is. An old key that is revoked endorses
    nothing: list its successor by hand. Raises ConfigError for what is no key, for a statement that
    the old key did not sign, and for a site all of whose identities are revoked.
    """
    gone = frozenset(public_key(text).public_bytes_raw() for text in revoked)
    succession = [_endorsement(statement) for statement in rotations]
    accepted = {}
    for site, texts in identities.items():
        listed = {public_key(text).public_bytes_raw() for text in texts}
        keys = listed - gone
        if listed and not keys:
            raise ConfigError(
                f"site {site}: every identity listed for it is revoked; list its new one"
            )
        while found := {new for old, new in succession if old in keys} - keys - gone:
            keys |= found
        if keys:
            accepted[site] = tuple(map(Ed25519PublicKey.from_public_bytes, sorted(keys)))
    return Roll(accepted, gone)


def endorse(old: Ed25519PrivateKey, new: Ed25519PublicKey) -> str:
    """The statement ``old:new:signature`` by which ``old`` says that ``new`` follows it."""
    successor = new.public_bytes_raw()
    message = _ROTATION + old.public_key().public_bytes_raw() + successor
    parts = (base64.b64encode(part).decode() for part in (successor, old.sign(message)))
    return ":".join((public_text(old), *parts))


def sign_reply(blob: bytes, identity: Ed25519PrivateKey, head: bytes = NO_HEAD) -> bytes:
    """The blob in its frame. ``head``: see ``fedcore.store.egress``."""
    signature = identity.sign(_message(head, blob))
    public = identity.public_key().public_bytes_raw()
    return b"".join((_MAGIC, public, head, signature, blob))


def open_reply(data: bytes, site: str, who: Roll) -> memoryview:
    """The blob, without a copy, if ``site`` may have sent it: signed by an identity of its own.

    Raises UpdateRejected that names the site, what is wrong, and the way out.
    """
    if not data.startswith(_MAGIC) or len(data) < FRAME:
        if site in who.accepted:
            raise UpdateRejected(
                f"site {site}: its reply is not signed, and the federation lists identities of it; "
                "set FEDCORE_IDENTITY at the site"
            )
        return memoryview(data)
    public, signature, blob = data[8:40], data[72:FRAME], memoryview(data)[FRAME:]
    name = base64.b64encode(public).decode()
    if public in who.revoked:
        raise UpdateRejected(
            f"site {site}: its reply is signed by {name}, which is revoked; give the site a new "
            "identity"
        )
    accepted = who.accepted.get(site)
    if accepted is not None and public not in {key.public_bytes_raw() for key in accepted}:
        raise UpdateRejected(
            f"site {site}: its reply is signed by {name}, which is no identity of it; if the key "
            "is new, add it to the federation's identities of the site"
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, _message(egress_head(data), blob))
    except (InvalidSignature, ValueError) as error:
        raise UpdateRejected(
            f"site {site}: its reply was changed after {name} signed it"
        ) from error
    return blob


def egress_head(data: bytes) -> bytes:
    """The head of the site's egress record that a signed reply witnesses."""
    return data[40:72] if data.startswith(_MAGIC) else NO_HEAD


def _message(head: bytes, blob: bytes | memoryview) -> bytes:
    return _REPLY + head + hashlib.sha256(blob).digest()


def _endorsement(statement: str) -> tuple[bytes, bytes]:
    """(old, new) of a statement that the old key signed."""
    try:
        old, new, signature = (
            base64.b64decode(part, validate=True) for part in statement.split(":")
        )
        Ed25519PublicKey.from_public_bytes(old).verify(signature, _ROTATION + old + new)
        Ed25519PublicKey.from_public_bytes(new)
    except (InvalidSignature, ValueError) as error:
        raise ConfigError(
            f"rotation {statement[:20]!r}…: the old key did not sign it; copy what `fedcore keys "
            "rotate` printed"
        ) from error
    return old, new
