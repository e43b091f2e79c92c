"""What holds for all tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes name no test: gzip's hold the time, and xdist's workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first: begun last, they would keep one worker busy and the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


MadeOnce = Callable[[str, Callable[[Path], None]], Path]
"""By a name and what makes it: a folder that is the same for all workers, to copy."""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """What takes long to make is made by the first worker that needs it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place, made = shared / name, shared / f"{name}-made"
        with (shared / f"{name}-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                place.mkdir(exist_ok=True)
                make(place)
                made.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def prefect_home(made_once: MadeOnce) -> Path:
    """A PREFECT_HOME with its database, which takes a core 17 s."""
    return made_once("prefect", _upgrade_database)


def _upgrade_database(home: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
        env={"PATH": os.defpath, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"},
        stdout=subprocess.DEVNULL, timeout=300, check=True,
    )  # fmt: skip
