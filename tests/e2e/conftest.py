"""What the end-to-end tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from demo_runs import copy_of, make_hospitals

Workdir = Callable[[str], Path]
"""By a name: a new folder for a command that starts a stack in it."""


@pytest.fixture(scope="session")
def new_workdir(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> Workdir:
    """``tests/local`` starts a stack in an empty folder; here its Prefect has its database."""

    def made(name: str) -> Path:
        workdir = tmp_path_factory.mktemp(name) / "run"
        shutil.copytree(prefect_home, workdir / "stack" / "prefect")
        return workdir

    return made


@pytest.fixture(scope="session")
def brain_workdir(
    tmp_path_factory: pytest.TempPathFactory,
    made_once: Callable[[str, Callable[[Path], None]], Path],
    prefect_home: Path,
) -> Workdir:
    """In these the brain's hospitals have their scans already, which take a core half a minute."""

    def make(folder: Path) -> None:
        shutil.copytree(prefect_home, folder / "run" / "stack" / "prefect")
        make_hospitals(folder / "run")

    hospitals = made_once("hospitals", make)
    return lambda name: copy_of(hospitals / "run", tmp_path_factory.mktemp(name) / "run")
