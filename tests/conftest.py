"""What holds for all tests."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes name no test: gzip's hold the time, and xdist's workers must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first: begun last, they would keep one worker busy and the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
