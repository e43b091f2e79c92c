"""Charts and their example values, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from charts import SERVER, SITE, complete


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each chart with its dependencies, by name."""
    folder = tmp_path_factory.mktemp("charts")
    return {chart.name: complete(chart, folder) for chart in (SITE, SERVER)}
