"""What holds for all tests."""

from __future__ import annotations

from typing import Any


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Bytes name no test: gzip's hold the time, and xdist's workers must collect the same names."""
    return argname if isinstance(val, bytes) else None
