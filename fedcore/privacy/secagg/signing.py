"""What a site's long-lived identity (Ed25519, RFC 8032) signs in a round, and who may have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcore.privacy.secagg.messages import SiteKeys
from fedcore.privacy.secagg.secrets import frame
from fedcore.privacy.secagg.terms import Terms

_DOMAIN = "fedcore/secagg/1/signed"


def sign_keys(keys: SiteKeys, identity: Ed25519PrivateKey, context: bytes) -> SiteKeys:
    return replace(keys, signature=identity.sign(_keys(keys, context)))


def keys_signed(keys: SiteKeys, accepted: Sequence[Ed25519PublicKey], context: bytes) -> bool:
    return _signed(keys.signature, _keys(keys, context), accepted)


def sign_survivors(survivors: Collection[str], identity: Ed25519PrivateKey, terms: Terms) -> bytes:
    return identity.sign(_survivors(survivors, terms))


def survivors_signed(
    survivors: Collection[str],
    signature: bytes,
    accepted: Sequence[Ed25519PublicKey],
    terms: Terms,
) -> bool:
    return _signed(signature, _survivors(survivors, terms), accepted)


def _keys(keys: SiteKeys, context: bytes) -> bytes:
    return frame(
        _DOMAIN, "keys", context, keys.site, keys.channel_key, keys.mask_key, keys.self_commitment
    )


def _survivors(survivors: Collection[str], terms: Terms) -> bytes:
    return frame(_DOMAIN, "survivors", terms.digest, *sorted(survivors))


def _signed(signature: bytes, message: bytes, accepted: Sequence[Ed25519PublicKey]) -> bool:
    for key in accepted:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False
