"""The files of `make image` and `make kind-test`, which need Docker or a cluster to be run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kind() -> Iterator[ModuleType]:
    """k8s/kind/federation.py, which is a script's module and no part of a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "k8s/kind"))
        import federation

        patch.setattr(federation, "_api_server", lambda: [{"cidr": "10.0.0.1/32", "port": 6443}])
        yield federation
    for name in ("federation", "cluster"):
        sys.modules.pop(name, None)
