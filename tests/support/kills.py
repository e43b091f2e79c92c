"""``kill -9`` at one operation on a store after the other, each time in a run of its own."""

from __future__ import annotations

from collections.abc import Callable

import toy
from faults import FaultyStore, Killed, deaths

from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

Play = Callable[[Store, toy.InlineLauncher], object]
"""Plays a run to its end, with this store as the server's."""

Check = Callable[[Store, int], object]
"""Looks at what came of it when it was taken up again after operation n."""


def kill_server(play: Play, check: Check, *, before: bool, every: int = 1) -> int:
    """Kill the server before each ``every``-th operation, or after every write (``faults.deaths``).

    Returns how many operations there are to die at.
    """
    store = MemoryStore()
    counting = FaultyStore(store, at=-1)
    play(counting, toy.InlineLauncher(store, toy.site_stores()))
    died = []
    for at in deaths(counting.operations, before=before, every=every):
        store = MemoryStore()
        launcher = toy.InlineLauncher(store, toy.site_stores())
        died.append(_dies(play, FaultyStore(store, at, before=before), launcher))
        play(store, launcher)
        check(store, at)
    _require_deaths(died)
    return len(counting.operations)


def kill_client(
    play: Play, check: Check, *, before: bool, in_own_bucket: bool, every: int = 1
) -> int:
    """Kill a client likewise: any, at its operations on the exchange, or north on its own bucket.

    Another one takes its place.
    """

    def attempt(at: int) -> tuple[list[str], bool]:
        store, data = MemoryStore(), toy.site_stores()
        faulty = FaultyStore(data["north"] if in_own_bucket else store, at, before=before)
        launcher = (
            toy.InlineLauncher(store, {**data, "north": faulty})
            if in_own_bucket
            else toy.InlineLauncher(faulty, data)
        )
        died = _dies(play, store, launcher)
        if died:
            play(store, toy.InlineLauncher(store, data))
        check(store, at)
        return faulty.operations, died

    operations, _ = attempt(-1)
    _require_deaths([attempt(at)[1] for at in deaths(operations, before=before, every=every)])
    return len(operations)


def _require_deaths(died: list[bool]) -> None:
    """Two runs behind masks or encrypted need not have as many operations: the last may be none."""
    assert all(died[:-1])


def _dies(play: Play, store: Store, launcher: toy.InlineLauncher) -> bool:
    try:
        play(store, launcher)
    except Killed:
        return True
    return False
