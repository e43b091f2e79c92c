"""What a site keeps to itself in a round: all of it derived from one random seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECRET_BYTES = 16
"""Length of a shared secret: pycryptodome's Shamir works in GF(2^128)."""

_DOMAIN = "fedcore/secagg/1"


def frame(*parts: bytes | str | int) -> bytes:
    """The parts as one byte string that no other parts give: each with its length before it."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)


def context_of(*parts: bytes | str | int) -> bytes:
    """A name for one attempt at one round, the same at every party: run, plan, round, attempt.

    Everything signed or derived is bound to it, so nothing can be carried into another round.
    """
    return hashlib.sha256(frame(_DOMAIN, "context", *parts)).digest()


def derive(secret: bytes, purpose: str, *parts: bytes | str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the secret for one purpose."""
    info = frame(_DOMAIN, purpose, *parts)
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def commitment(secret: bytes, site: str, context: bytes) -> bytes:
    """By which a reconstructed self-mask secret is recognised; says nothing of 128 random bits."""
    return hashlib.sha256(frame(_DOMAIN, "commitment", context, site, secret)).digest()


def mask_key(secret: bytes, context: bytes) -> X25519PrivateKey:
    """The private mask key that follows from the mask secret."""
    return X25519PrivateKey.from_private_bytes(derive(secret, "mask key", context))


def agreed(own: X25519PrivateKey, peer: bytes, purpose: str, *parts: bytes | str) -> bytes:
    """32 bytes that the holders of two X25519 keys share (RFC 7748), for one purpose.

    Raises ValueError for a peer's key that gives no secret (a point of small order).
    """
    return derive(own.exchange(X25519PublicKey.from_public_bytes(peer)), purpose, *parts)


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@dataclass(frozen=True)
class Secrets:
    """A site's secrets in one attempt at a round. In Bonawitz et al. 2017, Figure 4, the key pairs
    c and s, and the self-mask seed b.

    They mask **one** vector: two vectors under the same masks reveal their difference.
    """

    channel: X25519PrivateKey = field(repr=False)
    mask_secret: bytes = field(repr=False)
    mask: X25519PrivateKey = field(repr=False)
    self_secret: bytes = field(repr=False)
    rounding_key: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes, context: bytes) -> Secrets:
        """All secrets from one seed of the operating system. ValueError below 16 bytes."""
        if len(seed) < SECRET_BYTES:
            raise ValueError(f"a seed of {len(seed)} bytes can be guessed; use os.urandom(32)")
        mask_secret = derive(seed, "mask secret", context, length=SECRET_BYTES)
        return cls(
            channel=X25519PrivateKey.from_private_bytes(derive(seed, "channel key", context)),
            mask_secret=mask_secret,
            mask=mask_key(mask_secret, context),
            self_secret=derive(seed, "self mask", context, length=SECRET_BYTES),
            rounding_key=derive(seed, "rounding", context),
        )
