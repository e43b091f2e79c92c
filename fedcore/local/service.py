"""A service of the stack: a program under a tether, on ports that it keeps over restarts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fedcore.errors import ServiceUnavailable
from fedcore.launch.tether import Tethered, spawn
from fedcore.local import ports

_log = logging.getLogger("fedcore.local")
_PORT_TRIALS = 5
_MAX_REVIVALS = 5


class Program(Protocol):
    """What can be run as a service. Everything it writes lies below ``folder``."""

    name: str
    folder: Path
    num_ports: int
    grace: float

    def command(self, ports: Sequence[int]) -> list[str]:
        """The command that serves on these ports of loopback."""

    def environment(self, ports: Sequence[int]) -> dict[str, str]:
        """All of its environment."""

    def answers(self, ports: Sequence[int]) -> bool:
        """Whether it answers a real request, now."""

    def remains(self, ports: Sequence[int]) -> list[Path]:
        """The files outside ``folder`` that it leaves when it is killed."""


class Service:
    """One program: started, looked at, revived and stopped. Not for several threads at once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ports = self._former_ports()
        self.ready = False
        self.seconds = 0.0
        self._log = program.folder / "log"
        self._trials = self._revivals = 0
        self._process: Tethered | None = None

    @property
    def pid(self) -> int:
        """The process id of the program itself; 0 when it is not running."""
        return self._process.child_pid if self._process is not None else 0

    def start(self) -> None:
        """Start the program. ``look`` says when it is ready."""
        self.ready = False
        self._began = time.monotonic()
        self._process = spawn(
            self.program.command(self.ports),
            env=self.program.environment(self.ports),
            log=self._log,
            cwd=self.program.folder,
            grace=self.program.grace,
            lock=self.program.folder / "lock",
        )

    def look(self) -> None:
        """See whether it is ready by now; if others took its ports first, start it on new ones.

        Raises ServiceUnavailable, with the end of its log, if it ended for another reason.
        """
        if self.ready or self._process is None:
            return
        code = self._process.poll()
        if code is None:
            self._note_if_ready()
            return
        taken = not all(map(ports.is_free, self.ports))
        self._trials += 1
        if not taken or self._trials >= _PORT_TRIALS:
            raise ServiceUnavailable(self.report(f"ended with exit code {code}"))
        self.ports = self._new_ports()
        self.start()

    def revive(self) -> None:
        """Start it again on the same ports and data if it died; gives up after five vain starts."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            if not self.ready and self._note_if_ready():
                self._revivals = 0
                _log.warning("%s answers again after %.1f s", self.program.name, self.seconds)
            return
        if self._revivals == _MAX_REVIVALS:
            _log.error(self.report(f"keeps ending, now with exit code {code}; left as it is"))
            self._process = None
            return
        self._revivals += 1
        _log.warning("%s ended with exit code %d; it is started again", self.program.name, code)
        self.start()

    def stop(self) -> None:
        """End the program, and remove what it leaves outside its folder."""
        if self._process is not None:
            self._process.terminate()
            self._process = None
        for path in self.program.remains(self.ports):
            path.unlink(missing_ok=True)

    def report(self, what: str) -> str:
        """One sentence about the service, and the last lines of its log."""
        tail = self._process.log_tail() if self._process is not None else ""
        return f"{self.program.name} {what}; its log, {self._log}, ends with:\n{tail}"

    def _note_if_ready(self) -> bool:
        self.ready = self.program.answers(self.ports)
        self.seconds = time.monotonic() - self._began
        return self.ready

    def _former_ports(self) -> tuple[int, ...]:
        """Those of the last start, so that files that name them stay true, or new ones."""
        path = self.program.folder / "ports.json"
        former = tuple(json.loads(path.read_text())) if path.exists() else ()
        same = len(former) == self.program.num_ports and all(map(ports.is_free, former))
        return former if same else self._new_ports()

    def _new_ports(self) -> tuple[int, ...]:
        self.program.folder.mkdir(parents=True, exist_ok=True)
        chosen = ports.choose(self.program.num_ports)
        (self.program.folder / "ports.json").write_text(json.dumps(chosen))
        return chosen
