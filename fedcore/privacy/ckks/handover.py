"""How the key gets from the site that made it to the others: sealed to each, signed by the maker.

Without the signature, a server could make a key itself and seal it to the sites, whose channel
keys it has.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedcore.errors import OrderRefused, UpdateRejected
from fedcore.privacy.ckks.keys import open_secret, seal_secret

_DOMAIN = b"fedcore/ckks/1/key"


@dataclass(frozen=True)
class SealedKey:
    """The key for one site alone, and the maker's signature over it."""

    sealed: bytes
    signature: bytes

    def to_json(self) -> dict[str, str]:
        """Both in base64."""
        return {
            "sealed": base64.b64encode(self.sealed).decode(),
            "signature": base64.b64encode(self.signature).decode(),
        }

    @classmethod
    def from_json(
        cls, body: Any, error: type[OrderRefused] | type[UpdateRejected] = UpdateRejected
    ) -> SealedKey:
        """The inverse; raises ``error`` for anything else."""
        try:
            if set(body) != {"sealed", "signature"}:
                raise ValueError("other fields")
            parts = (
                base64.b64decode(body[name], validate=True) for name in ("sealed", "signature")
            )
            return cls(*parts)
        except (TypeError, ValueError, binascii.Error) as fault:
            raise error(f"not a sealed ckks key: {fault}") from None


def maker(sites: Collection[str], turn: int) -> str:
    """Who makes the key: another site each turn, so that one that vanishes does not stop a run.

    >>> [maker(["west", "east"], turn) for turn in (0, 1, 2)]
    ['east', 'west', 'east']
    """
    return sorted(sites)[turn % len(sites)]


def hand_over(
    secret_context: bytes,
    site: str,
    identity: Ed25519PrivateKey,
    channel_keys: Mapping[str, bytes],
    context: bytes,
) -> dict[str, SealedKey]:
    """The key sealed to each of the other sites. Fresh randomness: keep the result.

    ``channel_keys``: raw X25519 public keys, signed by the sites' identities. Raises OrderRefused
    for one with which no secret can be agreed.
    """
    keys = {}
    for peer, channel_key in sorted(channel_keys.items()):
        if peer == site:
            continue
        try:
            sealed = seal_secret(secret_context, channel_key, context)
        except ValueError as error:
            raise OrderRefused(f"the channel key of {peer} cannot be used: {error}") from None
        keys[peer] = SealedKey(sealed, identity.sign(_message(sealed, site, peer, context)))
    return keys


def take_over(
    key: SealedKey,
    made_by: str,
    site: str,
    channel: X25519PrivateKey,
    accepted: Sequence[Ed25519PublicKey],
    context: bytes,
) -> bytes:
    """The secret context, if ``made_by`` signed it and it is for this site.

    Raises OrderRefused.
    """
    message = _message(key.sealed, made_by, site, context)
    if not any(_signed(one, key.signature, message) for one in accepted):
        raise OrderRefused(
            f"the ckks key is not signed by an identity accepted for {made_by}, who was to make it"
        )
    return open_secret(key.sealed, channel, context)


def _message(sealed: bytes, made_by: str, peer: str, context: bytes) -> bytes:
    parts = (_DOMAIN, context, made_by.encode(), peer.encode(), sealed)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
