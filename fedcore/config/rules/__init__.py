"""What a plan may not combine: each fault as one sentence that says why, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcore.config.rules import aggregation, compression, privacy, secure, task, training

if TYPE_CHECKING:
    from fedcore.config.plan import Plan


def illegal_combinations(plan: Plan) -> list[str]:
    """What may not be combined, each fault as one sentence that says why and the way out."""
    sections = (task, training, aggregation, compression, privacy, secure)
    return [fault for section in sections for fault in section.check(plan)]
