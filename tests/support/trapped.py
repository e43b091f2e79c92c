"""The ``fedcore`` command with traps: ``kill -9`` exactly at a stage boundary of the run.

    python trapped.py '[["s3", "before", "survivors.json$"], …]' demo --workdir …

A trap is a victim (``flow``, this process itself; ``s3`` or ``prefect`` of its stack; ``clients``,
or one of them by its site's name), and the moment: ``before`` or ``after`` the server creates the
first object whose key matches, or when it ``sees`` that there is one. Traps spring in their order,
once each, and say so on stderr.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from running import processes

from fedcore import cli
from fedcore.local import Stack
from fedcore.store.s3 import S3Store

SPRUNG = "trap: killed"


class Traps:
    """Those that did not spring yet, and the stack in which they kill."""

    def __init__(self, traps: list[list[str]]) -> None:
        self._traps = traps
        self._stack: Stack | None = None
        self._killed = {"s3": 0, "prefect": 0}

    def set(self) -> None:
        """Put them into the store that the server uses, and learn which stack that is."""
        create, exists, start = S3Store.create, S3Store.exists, Stack.start

        def trapped_create(store: S3Store, key: str, data: bytes) -> bool:
            self._step("before", key)
            created = create(store, key, data)
            self._step("after", key)
            return created

        def trapped_exists(store: S3Store, key: str) -> bool:
            found = exists(store, key)
            if found:
                self._step("sees", key)
            return found

        def noted_start(stack: Stack) -> None:
            start(stack)
            self._stack = stack

        patched: Any = S3Store
        patched.create, patched.exists = trapped_create, trapped_exists
        Stack.start = noted_start  # type: ignore[method-assign]

    def _step(self, moment: str, key: str) -> None:
        if not self._traps or self._stack is None:
            return
        victim, wanted, pattern = self._traps[0]
        if moment == wanted and re.search(pattern, key):
            del self._traps[0]
            pids = self._pids(victim, self._stack)
            print(SPRUNG, victim, moment, key, file=sys.stderr, flush=True)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    def _pids(self, victim: str, stack: Stack) -> list[int]:
        if victim == "flow":
            return [os.getpid()]
        if victim in self._killed:
            return [self._healthy(victim, stack)]
        workdir = stack.prefect_home.parent.parent
        of_whom = f"policies/{victim}.yaml" if victim != "clients" else ""
        pids = processes(workdir, "-m fedcore client", of_whom)
        assert pids, f"no {victim} to kill"
        return pids

    def _healthy(self, victim: str, stack: Stack) -> int:
        """The victim's process, once it is itself again after an earlier kill."""
        service = stack._services[victim]
        _until(lambda: service.ready and service.pid != self._killed[victim])
        self._killed[victim] = service.pid
        return service.pid


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, "the stack did not recover"
        time.sleep(0.02)


if __name__ == "__main__":
    Traps(json.loads(sys.argv[1])).set()
    sys.argv[:2] = ["fedcore"]
    cli.main()
