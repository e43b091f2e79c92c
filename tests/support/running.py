"""Commands as a user runs them: a small plan for them, and what of them is still running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

SHIPPED = Path(__file__).parents[2] / "plans" / "brain_tumour.yaml"


def small_plan(path: Path) -> Path:
    """The shipped plan: two short rounds, splits for few subjects, and no gate to pass."""
    yaml = YAML()
    plan = yaml.load(SHIPPED)
    plan["rounds"] = 2
    plan["training"]["epochs"] = 1
    plan["task"]["dataset"]["arguments"]["fractions"] = [0.4, 0.3, 0.3]
    plan["gates"] = {}
    yaml.dump(plan, path)
    return path


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
