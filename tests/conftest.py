"""What holds for all tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes name no test: gzip's hold the time, and xdist's workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first: begun last, they would keep one worker busy and the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PREFECT_HOME with its database, which takes a core 17 s: made once, by one worker."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, made = shared / "prefect", shared / "prefect-made"
    with (shared / "prefect-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home.mkdir(exist_ok=True)
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
                env={"PATH": os.defpath, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1"},
                stdout=subprocess.DEVNULL, timeout=300, check=True,
            )  # fmt: skip
            made.touch()
    return home
