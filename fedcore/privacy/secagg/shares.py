"""Shares of the two secrets: split, sealed for their holders, put together again.

Shamir's scheme over GF(2^128) from pycryptodome; ChaCha20-Poly1305 (RFC 8439) between sites.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, combinations, islice

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedcore.privacy.secagg.secrets import SECRET_BYTES, Secrets, agreed, frame
from fedcore.privacy.secagg.terms import Terms

_NONCE = 12
_ATTEMPTS = 64


def split(secret: bytes, owner: str, terms: Terms) -> dict[str, bytes]:
    """A share of the secret for each holder in the owner's neighbourhood."""
    from Crypto.Protocol.SecretSharing import Shamir

    holders = terms.graph.holders(owner)
    shares = Shamir.split(terms.graph.threshold, len(holders), secret)
    return {holder: share for holder, (_, share) in zip(holders, shares, strict=True)}


def reconstruct(
    shares: Mapping[str, bytes], owner: str, terms: Terms, right: Callable[[bytes], bool]
) -> bytes | None:
    """The owner's secret from shares by holder, at least ``graph.threshold`` of them; None if no
    choice of shares gives one that is ``right``, because too many of them are wrong."""
    from Crypto.Protocol.SecretSharing import Shamir

    place = {holder: index for index, holder in enumerate(terms.graph.holders(owner), start=1)}
    points = {place[holder]: share for holder, share in shares.items()}
    for places in islice(_choices(sorted(points), terms.graph.threshold), _ATTEMPTS):
        secret = Shamir.combine([(at, points[at]) for at in places])
        if right(secret):
            return secret
    return None


def _choices(places: list[int], count: int) -> Iterator[tuple[int, ...]]:
    """Choices of ``count`` places; the first ones leave each out at least once, where any can."""
    around = places + places[: count - 1]
    turns = range(len(places) if count < len(places) else 1)
    first = (tuple(sorted(around[begin : begin + count])) for begin in turns)
    return chain(first, combinations(places, count) if len(turns) > 1 else ())


def seal(
    mask_share: bytes, self_share: bytes, sender: str, to: str, secrets: Secrets, terms: Terms
) -> bytes:
    """Both shares, readable by ``to`` alone and only as from ``sender`` under these terms."""
    nonce = os.urandom(_NONCE)
    cipher = channel(secrets, sender, to, terms)
    return nonce + cipher.encrypt(nonce, mask_share + self_share, _ends(sender, to, terms))


def unseal(
    ciphertext: bytes, sender: str, to: str, secrets: Secrets, terms: Terms
) -> tuple[bytes, bytes]:
    """(mask share, self share). Raises ValueError if it is not what ``sender`` sealed."""
    nonce, sealed = ciphertext[:_NONCE], ciphertext[_NONCE:]
    cipher = channel(secrets, to, sender, terms)
    try:
        shares = cipher.decrypt(nonce, sealed, _ends(sender, to, terms))
    except InvalidTag:
        raise ValueError("it was altered, or is from another round, or for another site") from None
    if len(shares) != 2 * SECRET_BYTES:
        raise ValueError(f"it holds {len(shares)} bytes, not two shares")
    return shares[:SECRET_BYTES], shares[SECRET_BYTES:]


def channel(secrets: Secrets, own: str, peer: str, terms: Terms) -> ChaCha20Poly1305:
    """What seals messages between two sites under these terms. ValueError for a bad key."""
    key = agreed(
        secrets.channel, terms.keys[peer].channel_key, "channel", terms.digest, *sorted((own, peer))
    )
    return ChaCha20Poly1305(key)


def _ends(sender: str, to: str, terms: Terms) -> bytes:
    return frame("shares", terms.digest, sender, to)
