"""A real SeaweedFS for tests, which may kill it, start it again, and fill its disk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedcore.local.credentials import ADMIN, identities, keep
from fedcore.local.seaweedfs import SeaweedFS
from fedcore.local.service import Service

BUCKET = "contracts"


class Weed:
    """``reach``: how ``fedcore.store.s3.connect`` reaches its bucket, as an administrator."""

    def __init__(self, folder: Path) -> None:
        credentials = keep(folder / "credentials.json", [])
        keys = credentials[ADMIN]
        self.folder = folder
        self._program = SeaweedFS(folder, identities(credentials), keys)
        self._service = Service(self._program)
        self.start()
        bucket = self._program.administrator(self._service.ports).on(BUCKET)
        bucket.create_bucket()
        bucket.put("ready", b"1")  # makes its volumes, for which a full disk has no room
        self.reach: dict[str, Any] = {
            "bucket": BUCKET,
            "endpoint": self._program.endpoint(self._service.ports),
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
        }

    def start(self) -> None:
        """Returns when it answers."""
        self._service.start()
        deadline = time.monotonic() + 60
        while not self._service.ready:
            self._service.look()
            assert time.monotonic() < deadline, self._service.report("did not answer in 60 s")

    def kill(self) -> None:
        """``kill -9``; returns when it is gone."""
        assert self._service._process is not None
        os.kill(self._service.pid, signal.SIGKILL)
        while self._service._process.poll() is None:
            time.sleep(0.01)

    def fill(self) -> Callable[[], None]:
        """Take all room that its file system has left; returns what gives it back."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                return filler.unlink

    def stop(self) -> None:
        self._service.stop()


@contextmanager
def running(folder: Path) -> Iterator[Weed]:
    """One below ``folder``; stopped when the block ends."""
    weed = Weed(folder)
    try:
        yield weed
    finally:
        weed.stop()
