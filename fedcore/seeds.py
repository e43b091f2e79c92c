"""Seeds for simulation, sampling and initialisation: never for keys, masks or production noise.

Every stream is named by a path, so that two uses never share one and none depends on call order.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by ``path`` (SHA-256 of both).

    >>> derive(1, "train", "north", 3) == derive(1, "train", "north", 3)
    True
    >>> derive(1, "train", "north", 3) == derive(1, "train", "south", 3)
    False
    """
    text = "\x1f".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A NumPy generator (Philox, counter based) for the stream named by ``path``."""
    return np.random.Generator(np.random.Philox(derive(seed, *path)))
