"""Params told as their difference from those that everybody has.

What coding loses is part of the next difference, so that it is made good without a residual: the
server compares with what the sites came to, not with what it wanted them to.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fedcore.compression.codec import Arrays, Codec, Turn
from fedcore.params import FloatArray, Params, subtract

SENDER = ""
"""Of a Turn on the way down: no site is called so."""


def code(codec: Codec, before: Params, wanted: Params, turn: Turn) -> dict[str, NDArray[Any]]:
    """What travels to those who have ``before``."""
    return codec.encode(subtract(wanted, before), turn)


def apply(codec: Codec, before: Params, change: Arrays, turn: Turn) -> dict[str, FloatArray]:
    """The params that this change makes of ``before``: on every machine the same bits.

    Raises UpdateRejected as ``decode`` does.
    """
    decoded = codec.decode(change, before, turn)
    return {name: array + decoded[name] for name, array in before.items()}
