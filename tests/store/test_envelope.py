"""Signed envelopes and the keys that sign them."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import ConfigError, Conflict, OrderRefused
from fedcore.store import envelope

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@given(st.text())
@settings(max_examples=30, deadline=None)
def test_round_trip_and_same_bytes(text: str) -> None:
    payload = text.encode("utf-8", "replace")
    sealed = envelope.seal(payload, KEY)
    assert sealed == envelope.seal(payload, KEY)
    assert envelope.unseal(sealed, KEY.public_key()) == payload


def test_changed_payload_and_other_keys_are_refused() -> None:
    sealed = json.loads(envelope.seal(b'{"a": 1}', KEY))
    changed = json.dumps({**sealed, "payload": '{"a": 2}'}).encode()
    with pytest.raises(OrderRefused, match="not the server's"):
        envelope.unseal(changed, KEY.public_key())
    with pytest.raises(OrderRefused, match="not the server's"):
        envelope.unseal(json.dumps(sealed).encode(), Ed25519PrivateKey.generate().public_key())


def test_signature_over_the_bare_payload_is_refused() -> None:
    """A signature that the key made for another protocol must not pass for an order."""
    import base64

    forged = {"payload": "x", "signature": base64.b64encode(KEY.sign(b"x")).decode()}
    with pytest.raises(OrderRefused):
        envelope.unseal(json.dumps(forged).encode(), KEY.public_key())


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OrderRefused):
        envelope.unseal(data, KEY.public_key())


def test_keys_are_made_once_and_readable_by_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "server.pem"
    key = envelope.create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert envelope.public_text(envelope.load_key(path)) == envelope.public_text(key)
    with pytest.raises(Conflict, match="is there already"):
        envelope.create_key(path)


def test_bad_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    with pytest.raises(ConfigError, match="fedcore keys create"):
        envelope.load_key(path)
    path.write_text("no key")
    with pytest.raises(ConfigError, match="not an unencrypted PEM"):
        envelope.load_key(path)
    with pytest.raises(ConfigError, match="not a base64 Ed25519"):
        envelope.public_key("AAAA")
