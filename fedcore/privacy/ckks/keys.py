"""The sites' key: made by one of them, sealed to each other one; the server gets none."""

from __future__ import annotations

import tenseal as ts
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcore.errors import OrderRefused
from fedcore.privacy.ckks.parameters import Parameters

_DOMAIN = b"fedcore/ckks/1"
_KEY_BYTES = 32
_NONCE = bytes(12)  # each key seals one message


def generate(parameters: Parameters) -> tuple[bytes, bytes]:
    """(secret context, public context), fresh, as TenSEAL serialises them.

    Encryption is symmetric: the sites hold the key anyway, and a ciphertext's noise is an eighth of
    what a public key gives. So the public context holds the parameters and no key at all: whoever
    has only that can add, and neither decrypt nor encrypt.
    """
    context = ts.context(
        ts.SCHEME_TYPE.CKKS,
        parameters.poly_modulus_degree,
        coeff_mod_bit_sizes=list(parameters.coeff_mod_bit_sizes),
        encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    context.global_scale = parameters.scale
    return _serialized(context, secret=True), _serialized(context, secret=False)


def seal_secret(secret_context: bytes, recipient_public: bytes, context: bytes) -> bytes:
    """The secret context for one site alone: ephemeral public key (32 bytes) ‖ ciphertext.

    X25519 with a fresh key, HKDF-SHA256 over both public keys and ``context``, ChaCha20-Poly1305:
    the construction of HPKE's base mode (RFC 9180). It does not say who sealed it: have it signed.
    Raises ValueError for a recipient's key that gives no secret (a point of small order).
    """
    ephemeral = X25519PrivateKey.generate()
    own = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient_public))
    cipher = ChaCha20Poly1305(derive(shared, b"seal", own, recipient_public, context))
    return own + cipher.encrypt(_NONCE, secret_context, context)


def open_secret(sealed: bytes, own_private: X25519PrivateKey, context: bytes) -> bytes:
    """The secret context. Raises OrderRefused where it was sealed to another, or changed."""
    sender, ciphertext = sealed[:_KEY_BYTES], sealed[_KEY_BYTES:]
    own = own_private.public_key().public_bytes_raw()
    try:
        shared = own_private.exchange(X25519PublicKey.from_public_bytes(sender))
        cipher = ChaCha20Poly1305(derive(shared, b"seal", sender, own, context))
        return cipher.decrypt(_NONCE, ciphertext, context)
    except (InvalidTag, ValueError) as error:
        raise OrderRefused(
            "the sealed ckks key does not open with this site's channel key: it was sealed to "
            "another site or another round, or changed on its way; the round must be repeated"
        ) from error


def derive(secret: bytes, *purpose: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the secret for one purpose; each part with its length before it."""
    info = b"".join(len(part).to_bytes(8, "big") + part for part in (_DOMAIN, *purpose))
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def _serialized(context: ts.Context, secret: bool) -> bytes:
    data: bytes = context.serialize(
        save_public_key=False,
        save_secret_key=secret,
        save_galois_keys=False,
        save_relin_keys=False,
    )
    return data
