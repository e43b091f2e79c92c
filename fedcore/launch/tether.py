"""A child process that never outlives its parent, even if the parent is killed by ``kill -9``.

Between the two stands a guard: this file, run as a script. It owns the child's process group and
holds one end of a pipe to the parent. When the pipe closes or the guard has another parent, it
ends the group. Linux's PR_SET_PDEATHSIG would not do: it follows the *thread* that spawned.

The guard leads a session of its own, so Ctrl-C at the terminal reaches the parent alone, which
can then end its children in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LOOK = 0.5
_LOCK_WAIT = 20.0
_CANNOT_START = 127
_LOCKED = 75


class Tethered:
    """A child under its guard."""

    def __init__(self, guard: subprocess.Popen[bytes], log: Path, grace: float) -> None:
        self._guard = guard
        self._log = log
        self._grace = grace
        assert guard.stdout is not None  # noqa: S101
        with guard.stdout as said:
            self.child_pid = int(said.readline() or 0)
        """The child's process id; 0 if it could not be started (``log_tail`` says why)."""

    def poll(self) -> int | None:
        """None while the child lives, else its exit code; 128 + n if signal n ended it."""
        code = self._guard.poll()
        return 128 - code if code is not None and code < 0 else code

    def terminate(self) -> None:
        """SIGTERM to the child's group, SIGKILL after its grace; returns when it is gone."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            if self.child_pid:
                _signal_group(self.child_pid, signal.SIGKILL)
            self._guard.kill()
            self._guard.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of what the child wrote."""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    grace: float = 5.0,
    lock: Path | None = None,
) -> Tethered:
    """Start ``command`` with exactly ``env``; what it writes is appended to ``log``.

    ``grace``: seconds from SIGTERM to SIGKILL. ``lock``: a file held while the child lives, so
    that a second child never starts on the same data, not even while the child of a parent that
    was killed is still going; after 20 s of waiting for it the exit code is 75.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = [sys.executable, "-IS", __file__, str(os.getpid()), str(grace), str(lock or "")]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    return Tethered(process, log, grace)


class _Watch:
    """What the guard sees: signals to itself, and whether the parent is there."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._signals, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakeup)

    def told_to_end(self, timeout: float) -> bool:
        """Wait for anything to happen; whether it means that the child must go."""
        ready, _, _ = select.select([0, self._signals], [], [], timeout)
        signals = os.read(self._signals, 512) if self._signals in ready else b""
        # A forked sibling can hold the pipe open; whose child we are cannot be held open.
        return (
            0 in ready or os.getppid() != self._parent or set(signals) - {signal.SIGCHLD} != set()
        )


def _guard(parent: int, grace: float, lock: str, command: Sequence[str]) -> int:
    watch = _Watch(parent)
    held = _take(lock, watch) if lock else ()
    if held is None:
        print(f"another process still uses {lock}", file=sys.stderr)  # noqa: T201
        return _LOCKED
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0, pass_fds=held
        )
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)  # noqa: T201
        return _CANNOT_START
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % child.pid)
    os.close(1)
    while child.poll() is None:
        if watch.told_to_end(_LOOK):
            _signal_group(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
            break
    _signal_group(child.pid, signal.SIGKILL)  # what the child left behind goes too
    code = child.wait()
    return 128 - code if code < 0 else code


def _take(lock: str, watch: _Watch) -> tuple[int] | None:
    """The descriptor that holds ``lock`` while the child has it open; None if it is another's."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return (descriptor,)
        if watch.told_to_end(0.1):
            break
    return None


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a zombie
        os.killpg(pid, number)


if __name__ == "__main__":
    sys.exit(_guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
