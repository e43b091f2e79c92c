"""Commands as a user runs them: waiting for them, and what of them is still running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(condition: Callable[[], Any], *, seconds: float = 300.0, told: str = "") -> Any:
    """Wait for the condition, and return what it gave; AssertionError if it never comes."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"not within {seconds:g} s: {told}"
        time.sleep(0.1)
    return found


def processes(workdir: Path, words: str = "", environment: str = "") -> list[int]:
    """The processes below ``workdir``, by what they are.

    ``workdir`` is in their command line or environment, ``words`` in the former, ``environment``
    in the latter.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            surroundings = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        ours = str(workdir) in command or str(workdir) in surroundings
        meant = words in command and environment in surroundings
        if ours and meant and "tether.py" not in command:
            found.append(int(folder.name))
    return found
