"""The plan that a demo runs: the shipped one, or another, with what the command line changes."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.config import plan as plans

WEIGHT_CAP = 64
"""Above every site's number of examples, so that weights are as they are without a cap."""

Fields = dict[str, Any]
"""A plan as its file has it."""


@dataclass(frozen=True)
class Choices:
    """What the command line asks for. None leaves a thing as the plan has it.

    ``plan``: another file than the shipped one. ``secure``: a mode of secure aggregation; weights
    that the plan does not bound are capped then. ``compress``: few bytes, both ways; behind masks
    what can be summed there.
    """

    plan: Path | None = None
    rounds: int | None = None
    secure: str | None = None
    compress: bool = False


def plan_of(choices: Choices) -> plans.Plan:
    """The plan with the choices in it. Raises ConfigError for one that cannot be."""
    plan = _chosen(choices.plan)
    fields = plan.model_dump(mode="json", exclude_defaults=True)
    asked = []
    if choices.rounds is not None:
        fields["rounds"] = choices.rounds
        asked.append(f"--rounds {choices.rounds}")
    if choices.secure is not None:
        _secure(fields, choices.secure)
        asked.append(f"--secure {choices.secure}")
    if choices.compress:
        _compress(fields)
        asked.append("--compress")
    return plans.parse(json.dumps(fields), source=" ".join(["the plan with", *asked]))


def _chosen(path: Path | None) -> plans.Plan:
    if path is not None:
        return plans.load(path)
    shipped = importlib.resources.files("plans") / "brain_tumour.yaml"
    return plans.parse(shipped.read_text(encoding="utf-8"), source="plans/brain_tumour.yaml")


def _secure(fields: Fields, mode: str) -> None:
    fields.setdefault("secure_aggregation", {})["mode"] = mode
    _bound_weights(fields)


def _compress(fields: Fields) -> None:
    """The signs of the largest values each way, and four bits of each in the last change.

    A sum behind masks carries values, not signs: a third of them then, in 2 bytes each.
    """
    signs = {"stage": "quantise", "bits": 1}
    secure = fields.get("secure_aggregation", {})
    if secure.get("mode", "none") == "none":
        up = [{"stage": "top_k", "share": 0.3}, signs]
    else:
        up = [{"stage": "subsample", "every": 3}]
        secure["bits"] = min(secure.get("bits", 14), 14)
    fields["compression"] = {
        "up": up,
        "down": [{"stage": "top_k", "share": 0.25}, signs],
        "feedback": True,
        "container": "zstd",
        "last": {"down": [{"stage": "quantise", "bits": 4}]},
    }


def _bound_weights(fields: Fields) -> None:
    how = fields.setdefault("aggregation", {})
    if how.get("weights", "examples") == "examples":
        how.setdefault("weight_cap", WEIGHT_CAP)
