"""The messages of a round, and their JSON: read strictly, because it comes from another party.

``from_json`` raises UpdateRejected, or the error that the caller names (a site: OrderRefused).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from fedcore.errors import PermanentError, UpdateRejected
from fedcore.privacy.secagg.secrets import SECRET_BYTES

KEY_BYTES = 32
SIGNATURE_BYTES = 64
CIPHERTEXT_BYTES = 12 + 2 * SECRET_BYTES + 16
"""Nonce, the two shares, tag."""

HOLDINGS_BYTES = 32
"""Of a mark for each module, a bit each."""

SEALED_HOLDINGS_BYTES = 12 + HOLDINGS_BYTES + 16

_MAX_SITES = 10_000
_MAX_NAME = 253

Json = Mapping[str, Any]
Refused = type[PermanentError]


@dataclass(frozen=True)
class SiteKeys:
    """A site's public keys in a round, signed by its identity (advertise_keys)."""

    site: str
    channel_key: bytes
    mask_key: bytes
    self_commitment: bytes
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "site": self.site,
            "channel_key": _text(self.channel_key),
            "mask_key": _text(self.mask_key),
            "self_commitment": _text(self.self_commitment),
            "signature": _text(self.signature),
        }

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> SiteKeys:
        reader = _Reader(cls, error)
        body = reader.message(body)
        return cls(
            reader.site(body["site"]),
            reader.raw(body["channel_key"], KEY_BYTES),
            reader.raw(body["mask_key"], KEY_BYTES),
            reader.raw(body["self_commitment"], KEY_BYTES),
            reader.raw(body["signature"], SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class Roster:
    """The keys of all sites that take part, as the server passes them on."""

    keys: tuple[SiteKeys, ...]

    def to_json(self) -> dict[str, Any]:
        return {"keys": [keys.to_json() for keys in self.keys]}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Roster:
        reader = _Reader(cls, error)
        keys = reader.list(reader.message(body)["keys"])
        return cls(tuple(SiteKeys.from_json(each, error) for each in keys))


@dataclass(frozen=True)
class Shares:
    """Encrypted shares by the other end: what a site sends, or what is addressed to it."""

    ciphertexts: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        return {"ciphertexts": _texts(self.ciphertexts)}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Shares:
        reader = _Reader(cls, error)
        return cls(reader.by_site(reader.message(body)["ciphertexts"], CIPHERTEXT_BYTES))


@dataclass(frozen=True)
class Holdings:
    """Encrypted marks of the modules that a site trains, by the other end."""

    ciphertexts: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        return {"ciphertexts": _texts(self.ciphertexts)}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Holdings:
        reader = _Reader(cls, error)
        return cls(reader.by_site(reader.message(body)["ciphertexts"], SEALED_HOLDINGS_BYTES))


@dataclass(frozen=True)
class Surviving:
    """Who shared keys, and whose masked input arrived, as the server says."""

    senders: tuple[str, ...]
    survivors: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"senders": list(self.senders), "survivors": list(self.survivors)}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Surviving:
        reader = _Reader(cls, error)
        body = reader.message(body)
        return cls(reader.sites(body["senders"]), reader.sites(body["survivors"]))


@dataclass(frozen=True)
class Signatures:
    """Signatures over the survivors, by site: one site's own, or all of them passed on."""

    signatures: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        return {"signatures": _texts(self.signatures)}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Signatures:
        reader = _Reader(cls, error)
        return cls(reader.by_site(reader.message(body)["signatures"], SIGNATURE_BYTES))


@dataclass(frozen=True)
class Revealed:
    """The shares that a site reveals: of a survivor's self-mask secret, of a dropped sender's mask
    secret, and never both of one site."""

    self_shares: Mapping[str, bytes]
    mask_shares: Mapping[str, bytes]

    def to_json(self) -> dict[str, Any]:
        return {"self_shares": _texts(self.self_shares), "mask_shares": _texts(self.mask_shares)}

    @classmethod
    def from_json(cls, body: Json, error: Refused = UpdateRejected) -> Revealed:
        reader = _Reader(cls, error)
        body = reader.message(body)
        revealed = cls(
            reader.by_site(body["self_shares"], SECRET_BYTES),
            reader.by_site(body["mask_shares"], SECRET_BYTES),
        )
        if both := set(revealed.self_shares) & set(revealed.mask_shares):
            reader.refuse(f"it reveals both secrets of {min(both)}")
        return revealed


class _Reader:
    """Reads JSON values of one kind of message, and refuses what does not belong there."""

    def __init__(self, kind: type[Any], error: Refused) -> None:
        self._kind, self._error = kind, error

    def refuse(self, reason: str) -> NoReturn:
        raise self._error(f"not a {self._kind.__name__} message: {reason}")

    def message(self, body: object) -> dict[str, Any]:
        wanted = {field.name for field in fields(self._kind)}
        if not isinstance(body, Mapping) or set(body) != wanted:
            self.refuse(f"an object with exactly {sorted(wanted)} is wanted")
        return dict(body)

    def list(self, value: object) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > _MAX_SITES:
            self.refuse(f"a list of at most {_MAX_SITES} is wanted")
        return list(value)

    def site(self, value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
            self.refuse(f"a site's name is wanted, not {str(value)[:40]!r}")
        return value

    def sites(self, value: object) -> tuple[str, ...]:
        named = tuple(self.site(each) for each in self.list(value))
        if len(set(named)) != len(named):
            self.refuse("a site is named twice")
        return tuple(sorted(named))

    def raw(self, value: object, length: int) -> bytes:
        try:
            data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        except (binascii.Error, ValueError):
            data = b""
        if (
            len(data) != length or _text(data) != value
        ):  # base64 has several spellings; one is right
            self.refuse(f"{length} bytes in base64 are wanted, not {str(value)[:40]!r}")
        return data

    def by_site(self, value: object, length: int) -> dict[str, bytes]:
        if not isinstance(value, Mapping) or len(value) > _MAX_SITES:
            self.refuse(f"an object of at most {_MAX_SITES} sites is wanted")
        return {self.site(site): self.raw(raw, length) for site, raw in value.items()}


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _texts(by_site: Mapping[str, bytes]) -> dict[str, str]:
    return {site: _text(raw) for site, raw in sorted(by_site.items())}
