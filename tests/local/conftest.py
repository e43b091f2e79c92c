from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcore.local import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack of two sites. Tests may kill its services, not stop them."""
    workdir: Path = tmp_path_factory.mktemp("stack")
    with Stack(workdir, ["north", "south"]) as running:
        yield running
