"""Signed envelopes: a JSON payload with an Ed25519 signature (RFC 8032) over exactly its bytes."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcore.errors import ConfigError, Conflict, OrderRefused

_DOMAIN = b"fedcore order 1\n"  # a signature made for orders can never pass for anything else


def seal(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope of ``payload``. The same payload and key give the same bytes."""
    signature = base64.b64encode(key.sign(_DOMAIN + payload)).decode()
    return json.dumps({"payload": payload.decode(), "signature": signature}).encode()


def unseal(envelope: bytes, key: Ed25519PublicKey) -> bytes:
    """The payload, if ``key`` signed it. Raises OrderRefused otherwise, whatever the bytes are."""
    try:
        fields = json.loads(envelope)
        payload = fields["payload"].encode()
        signature = base64.b64decode(fields["signature"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OrderRefused("the order is unsigned or malformed") from error
    try:
        key.verify(signature, _DOMAIN + payload)
    except InvalidSignature as error:
        raise OrderRefused("the order's signature is not the server's") from error
    return bytes(payload)


def create_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and write it to ``path`` (PEM, mode 0600). Raises Conflict if it is there."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already; others trust that key, so it is kept") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises ConfigError that names the file and the way out."""
    hint = "make one with `fedcore keys create`"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; {hint}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: is not an unencrypted PEM private key; {hint}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is not an Ed25519 key; {hint}")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half in base64, as policies and federation files hold it."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def public_key(text: str) -> Ed25519PublicKey:
    """Read what public_text made. Raises ConfigError."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a base64 Ed25519 key; `fedcore keys show` prints it"
        ) from error
