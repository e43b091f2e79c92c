"""Free ports on loopback."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
_RANGE = range(10240, 32768)
"""Below what systems lend to outgoing connections, which could take a dead service's port."""


def is_free(port: int) -> bool:
    """Whether nobody listens on ``port``; connections of a former listener may still fade."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(count: int) -> tuple[int, ...]:
    """``count`` distinct ports that are free now."""
    candidates = random.SystemRandom().sample(_RANGE, len(_RANGE))
    free = (port for port in candidates if is_free(port))
    return tuple(next(free) for _ in range(count))
