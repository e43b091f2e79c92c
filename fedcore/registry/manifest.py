"""What a registered version says of itself: enough to judge it, and to check that it is itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Manifest:
    """One version of a model.

    - ``created``: ISO 8601, UTC. ``plan``: every field of the plan, which ``plan_digest`` names
    - ``params_digest``: ``params.digest`` of the params; ``onnx_digest``: SHA-256 of the file
    - ``onnx_max_abs_diff``: of a probability, PyTorch to ONNX; None = never compared
    - ``verdict``: ``{passed, reasons, checks: [{name, threshold, value, passed, reason}]}``
    - ``metrics``: ``{all: S, sites: {site: S}}`` with S of the plan's ``metrics.summarise``
    - ``privacy``: ``{unit, epsilon (None = no guarantee), delta, statement}``
    - ``participants``: site → ``{num_subjects, modalities: {name: count}, left_out: {reason:
      count}}`` of the subjects it trained on
    """

    name: str
    version: int
    run_id: str
    created: str
    plan_digest: str
    plan: Mapping[str, Any]
    params_digest: str
    onnx_digest: str
    onnx_max_abs_diff: float | None
    verdict: Mapping[str, Any]
    metrics: Mapping[str, Any]
    privacy: Mapping[str, Any]
    participants: Mapping[str, Mapping[str, Any]]
    fedcore_version: str
