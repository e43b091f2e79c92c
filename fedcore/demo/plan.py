"""The plan that a demo runs: the shipped one, or another, with what the command line changes."""

from __future__ import annotations

import importlib.resources
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcore.config import plan as plans
from fedcore.config.protection import Privacy
from fedcore.errors import ConfigError
from fedcore.privacy.accounting import calibrate

SHIPPED = {"brain": "brain_tumour.yaml", "lung": "lung.yaml", "retina": "retina.yaml"}
"""Disease → its plan, in ``plans``."""

WEIGHT_CAP = 64
"""Above every site's number of examples, so that weights are as they are without a cap."""

THRESHOLD = 3
"""Of the demo's four sites, whose shares of noise are enough: one may drop out of a round."""

SUBJECT_STEPS = 3
"""Local steps a round of ``--dp subject``: 45 small ones cost no more than 15 large ones."""

SITE_ROUNDS = 4
"""Rounds of ``--dp site``: the fewer, the less noise in each; so small a model needs no more."""

Fields = dict[str, Any]
"""A plan as its file has it."""


@dataclass(frozen=True)
class Choices:
    """What the command line asks for. None leaves a thing as the plan has it.

    ``disease``: whose shipped plan, out of ``SHIPPED``. ``plan``: another file than that.
    ``secure``: a mode of secure aggregation; weights that the plan does not bound are capped then.
    ``dp``: whom noise hides, one subject or one site, with ``epsilon`` over the whole run at the
    plan's target_delta. ``compress``: few bytes, both ways; behind masks what can be summed there.
    """

    plan: Path | None = None
    rounds: int | None = None
    secure: str | None = None
    dp: str | None = None
    epsilon: float | None = None
    compress: bool = False
    disease: str = "brain"


def plan_of(choices: Choices) -> plans.Plan:
    """The plan with the choices in it. Raises ConfigError for one that cannot be."""
    plan = _chosen(choices)
    fields = plan.model_dump(mode="json", exclude_defaults=True)
    asked = []
    if choices.rounds is not None:
        fields["rounds"] = choices.rounds
        asked.append(f"--rounds {choices.rounds}")
    elif choices.dp == "site":
        fields["rounds"] = SITE_ROUNDS
    if choices.secure is not None:
        _secure(fields, choices.secure)
        asked.append(f"--secure {choices.secure}")
    if (choices.dp is None) != (choices.epsilon is None):
        raise ConfigError("--dp and --epsilon go together: whom the noise hides, and how well")
    if choices.epsilon is not None:
        if not 0 < choices.epsilon < math.inf:
            raise ConfigError(f"--epsilon {choices.epsilon:g}: it must be above 0 and finite")
        if choices.disease != "brain":
            raise ConfigError(
                f"--dp with --disease {choices.disease}: the small model that bears the noise "
                "measures heads alone"
            )
        level = _subject_level if choices.dp == "subject" else _site_level
        level(fields, choices.epsilon)
        asked.append(f"--dp {choices.dp} --epsilon {choices.epsilon:g}")
    if choices.compress:
        _compress(fields)
        asked.append("--compress")
    return plans.parse(json.dumps(fields), source=" ".join(["the plan with", *asked]))


def _chosen(choices: Choices) -> plans.Plan:
    if choices.plan is not None:
        return plans.load(choices.plan)
    name = SHIPPED[choices.disease]
    shipped = importlib.resources.files("plans") / name
    return plans.parse(shipped.read_text(encoding="utf-8"), source=f"plans/{name}")


def _secure(fields: Fields, mode: str) -> None:
    fields.setdefault("secure_aggregation", {})["mode"] = mode
    _bound_weights(fields)


def _compress(fields: Fields) -> None:
    """The signs of the largest fifth each way. In the last round a few bits of every value: what
    feedback still holds would be lost, and what coding left in the params be released.

    A sum behind masks carries values, not signs: a third of them then, in 2 bytes each.
    """
    signs = {"stage": "quantise", "bits": 1}
    last = {"down": [{"stage": "quantise", "bits": 4}]}
    secure = fields.get("secure_aggregation", {})
    if secure.get("mode", "none") == "none":
        up = [{"stage": "top_k", "share": 0.2}, signs]
        last["up"] = [{"stage": "quantise", "bits": 2}]
    else:
        up = [{"stage": "subsample", "every": 3}]
        secure["bits"] = min(secure.get("bits", 14), 14)
    fields["compression"] = {
        "up": up,
        "down": [{"stage": "top_k", "share": 0.2}, signs],
        "feedback": True,
        "container": "zstd",
        "last": last,
    }


def _bound_weights(fields: Fields) -> None:
    how = fields.setdefault("aggregation", {})
    if how.get("weights", "examples") == "examples":
        how.setdefault("weight_cap", WEIGHT_CAP)


def _subject_level(fields: Fields, epsilon: float) -> None:
    """Noise at the sites that hides one subject, calibrated for all steps, and a model for it.

    All subjects are in every step: for so few of them, a sample's noise weighs more than what its
    being secret is worth. Behind masks nothing more is needed: each update is noisy by itself.
    """
    privacy = fields.setdefault("privacy", {})
    delta = privacy.get("target_delta", Privacy().target_delta)
    count = fields["rounds"] * SUBJECT_STEPS
    noise = calibrate(epsilon, delta, count=count, unit="subject")
    privacy["subject"] = {
        "clip_norm": 1.0, "noise_multiplier": noise, "sampling_rate": 1.0, "steps": SUBJECT_STEPS,
    }  # fmt: skip
    rate = min(1.0, epsilon / 8)  # the noisier a step, the shorter
    fields["training"] = {"batch_size": 16, "optimizer": "sgd", "learning_rate": rate}
    _small_model(fields)


def _site_level(fields: Fields, epsilon: float) -> None:
    """Noise that hides one site, calibrated for all rounds, and a model for it. Behind masks, the
    sites add it.

    Nothing is claimed from sampling the cohort: it follows from the plan's seed, which all know.
    The first step of the map is about as long as ``clip_norm``.
    """
    privacy = fields.setdefault("privacy", {})
    delta = privacy.get("target_delta", Privacy().target_delta)
    privacy["noise_multiplier"] = calibrate(epsilon, delta, count=fields["rounds"])
    privacy["clip_norm"] = 1.0
    fields["training"] = {
        "epochs": 2, "batch_size": 16, "optimizer": "sgd", "learning_rate": 2.0,
    }  # fmt: skip
    _small_model(fields)
    secure = fields.get("secure_aggregation", {})
    if secure.get("mode") == "masks":
        privacy["noise_by"] = "sites"
        secure.setdefault("threshold", THRESHOLD)


def _small_model(fields: Fields) -> None:
    """So few params that the noise does not drown them; and every site counts the same."""
    fields.setdefault("aggregation", {})["weights"] = "uniform"
    fields["aggregation"].pop("weight_cap", None)
    grid = fields["task"]["dataset"].get("arguments", {})
    fields["task"]["model"] = {
        "function": "fedcore.models.private:findings_classifier",
        "arguments": {name: grid[name] for name in ("shape", "spacing_mm") if name in grid},
    }
