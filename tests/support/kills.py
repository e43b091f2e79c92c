"""``kill -9`` at one operation on a store after the other, each time in a run of its own."""

from __future__ import annotations

from collections.abc import Callable

import toy
from faults import FaultyStore, Killed

from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

Play = Callable[[Store, toy.InlineLauncher], object]
"""Plays a run to its end, with this store as the server's."""

Check = Callable[[Store, int], object]
"""Looks at what came of it when it was taken up again after operation n."""


def kill_server(play: Play, check: Check, *, before: bool, every: int = 1) -> int:
    """Kill the server before, or after, its operation 0, ``every``, … until none is left.

    Returns how many operations that were, about.
    """
    at, killed = 0, True
    while killed:
        store = MemoryStore()
        launcher = toy.InlineLauncher(store, toy.site_stores())
        killed = _dies(play, FaultyStore(store, at, before=before), launcher)
        play(store, launcher)
        check(store, at)
        at += every
    return at


def kill_client(
    play: Play, check: Check, *, before: bool, in_own_bucket: bool, every: int = 1
) -> int:
    """Kill a client likewise: any, at its operations on the exchange, or north on its own bucket.

    Another one takes its place.
    """
    at, killed = 0, True
    while killed:
        store, data = MemoryStore(), toy.site_stores()
        hurt = FaultyStore(data["north"] if in_own_bucket else store, at, before=before)
        launcher = (
            toy.InlineLauncher(store, {**data, "north": hurt})
            if in_own_bucket
            else toy.InlineLauncher(hurt, data)
        )
        killed = _dies(play, store, launcher)
        if killed:
            play(store, toy.InlineLauncher(store, data))
        check(store, at)
        at += every
    return at


def _dies(play: Play, store: Store, launcher: toy.InlineLauncher) -> bool:
    try:
        play(store, launcher)
    except Killed:
        return True
    return False
