"""The shipped plans at small size: changes that make grids coarse, and some models narrow.

The brain's keeps its width: tests say how many bytes it takes to send.
"""

from __future__ import annotations

from typing import Any

_MODEL = {"arguments": {"width": 4, "features": 8}}

COARSE: dict[str, dict[str, Any]] = {
    "brain": {"dataset": {"arguments": {"shape": [20, 24, 20], "spacing_mm": 8.0}}},
    "lung": {
        "dataset": {"arguments": {"shape": [20, 16, 18], "spacing_mm": 16.0}},
        "model": _MODEL,
    },
    "retina": {
        "modalities": {
            "fundus": {"shape": [48, 48]},
            "oct": {"shape": [24, 24, 6], "spacing_mm": [0.25, 0.04, 1.0]},
        },
        "model": _MODEL,
    },
}
"""Disease → what differs from the task of its plan, field by field."""


def changed(fields: Any, changes: Any) -> Any:
    """The fields of a plan, or what its file has of them, with the changes, however deep."""
    for name, change in changes.items():
        deeper = isinstance(change, dict)
        fields[name] = changed(fields.get(name, {}), change) if deeper else change
    return fields
