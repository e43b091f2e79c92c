"""The one figure that a task is first judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Headline:
    """``key``: in a slice's figures; ``of_class``: in those of a class; ``label``: in words."""

    key: str
    of_class: str
    label: str

    def value(self, summary: Mapping[str, Any]) -> float | None:
        """Of all subjects of a summary; None if it is not there or undefined."""
        value: float | None = self.interval(summary).get("value")
        return value

    def interval(self, summary: Mapping[str, Any]) -> Mapping[str, float | None]:
        """Value, low and high; empty if there is none."""
        found: Mapping[str, float | None] = (summary.get("overall") or {}).get(self.key) or {}
        return found


CLASSIFICATION = Headline("macro_auc", "auc", "macro AUC")
SEGMENTATION = Headline("dice", "dice", "Dice")


def headline(figures: Mapping[str, Any]) -> Headline:
    """That of a slice's figures, as ``metrics`` or ``overlap`` summarise them.

    >>> headline({"dice": {"value": 0.8}}).label, headline({}).label
    ('Dice', 'macro AUC')
    """
    return SEGMENTATION if SEGMENTATION.key in figures else CLASSIFICATION
