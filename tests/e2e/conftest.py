"""What several files of these tests begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from demo_runs import end, start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("demo") / "undisturbed"
    return workdir, end(start(workdir))
