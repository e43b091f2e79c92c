"""Runs a container as a local process: its own command, environment and folders, nothing more."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kube_container import Container, StartError

from fedcore.launch.tether import spawn

_LOOK = 0.02
_SUPPORT = Path(__file__).parent


class ProcessRunner:
    """``fedcore`` is the console script of this interpreter's environment.

    The process sees what the Job gives it, a PATH that begins with that environment's ``bin``, and
    a PYTHONPATH with this checkout and ``tests/support`` (``toy``). It dies with the test.
    """

    def __init__(self, pythonpath: Sequence[Path] = (_SUPPORT.parents[1], _SUPPORT)) -> None:
        own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._env = {"PATH": own, "PYTHONPATH": os.pathsep.join(map(str, pythonpath))}

    def __call__(self, container: Container) -> int:
        env = self._env | {key: container.here(value) for key, value in container.env.items()}
        command = [container.here(word) for word in container.command]
        program = shutil.which(command[0], path=env["PATH"]) if command else None
        if program is None:
            name = command[0] if command else "the image's own entrypoint"
            raise StartError(
                "failed to create containerd task: failed to create shim task: OCI runtime create "
                "failed: runc create failed: unable to start container process: error during "
                f'container init: exec: "{name}": executable file not found in $PATH'
            )
        workdir = Path(container.here(container.workdir))
        child = spawn(
            [program, *command[1:]], env=env, log=container.log,
            cwd=workdir if workdir.is_dir() else container.folder, grace=0.5,
        )  # fmt: skip
        asked = False
        while (code := child.poll()) is None:
            if container.killed.is_set():
                _signal(child.child_pid, signal.SIGKILL)
            elif container.stopping.is_set() and not asked:
                asked = True
                _signal(child.child_pid, signal.SIGTERM)
            container.killed.wait(_LOOK)
        child.terminate()
        return code


def _signal(pid: int, number: int) -> None:
    if pid:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
