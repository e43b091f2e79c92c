"""Masks: ChaCha20 key streams, added to a vector of words and taken away again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from fedcore.params import BLOCK
from fedcore.privacy.secagg.secrets import agreed, derive
from fedcore.privacy.secagg.terms import Terms

Words = NDArray[np.unsignedinteger[Any]]
Mask = tuple[bytes, int]
"""A key, and +1 or −1: whether its stream is added or subtracted."""


def pair_mask(own: X25519PrivateKey, site: str, peer: str, terms: Terms) -> Mask:
    """What ``site`` adds for ``peer``: ``peer`` adds the same with the opposite sign.

    Raises ValueError for a peer's key that gives no secret.
    """
    ends = sorted((site, peer))
    key = agreed(own, terms.keys[peer].mask_key, "pair mask", terms.digest, *ends)
    return key, 1 if site == ends[0] else -1


def self_mask(secret: bytes, site: str, terms: Terms) -> Mask:
    """What ``site`` adds for itself, so that a late vector stays masked with its pairs known."""
    return derive(secret, "self mask", terms.digest, site), 1


def opposite(mask: Mask) -> Mask:
    return mask[0], -mask[1]


def add(vector: Words, masks: Sequence[Mask], on_step: Callable[[], None] | None = None) -> None:
    """Add the masks to the vector, in place, modulo 2^word; ``on_step`` is called as it goes on.

    A key stream is read as little-endian words. Block by block over all masks, so that vector and
    stream stay in the processor's cache.
    """
    streams = [
        (Cipher(algorithms.ChaCha20(key=key, nonce=bytes(16)), mode=None).encryptor(), sign)
        for key, sign in masks
    ]
    zeros = memoryview(bytes(vector.itemsize * BLOCK))
    mask = np.empty(BLOCK, vector.dtype.newbyteorder("<"))
    raw = mask.view(np.uint8)
    for begin in range(0, vector.size, BLOCK):
        block = vector[begin : begin + BLOCK]
        words, used = mask[: block.size], block.size * vector.itemsize
        for stream, sign in streams:
            stream.update_into(zeros[:used], raw[:used].data)
            if sign > 0:
                np.add(block, words, out=block)
            else:
                np.subtract(block, words, out=block)
        if on_step is not None:
            on_step()
