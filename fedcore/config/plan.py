"""The plan: what one run does, as a file that people read, review and sign off.

The plan's digest names it. A site may allow a plan by digest, so every field that changes what a
site is asked to do belongs in here, and nothing else (addresses are in the federation file).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedcore.config import yaml
from fedcore.config.coding import Compression
from fedcore.config.learning import Aggregation, Cohort, Training
from fedcore.config.protection import Privacy, SecureAggregation
from fedcore.config.rules import illegal_combinations
from fedcore.config.section import Name, Section
from fedcore.config.task import Task


class Gates(Section):
    """What a model must reach on the sites' held-out subjects to be promoted. Unset = not asked."""

    min_macro_auc: float | None = Field(default=None, ge=0, le=1)
    min_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_sensitivity: float | None = Field(default=None, ge=0, le=1)
    min_specificity: float | None = Field(default=None, ge=0, le=1)
    min_site_auc: float | None = Field(default=None, ge=0, le=1, description="of the worst site")
    min_dice: float | None = Field(default=None, ge=0, le=1, description="of a segmentation")
    min_site_dice: float | None = Field(default=None, ge=0, le=1, description="of the worst site")
    max_group_gap: float | None = Field(
        default=None, ge=0, le=1, description="largest difference in macro AUC, of a segmentation "
        "in Dice, between two groups of one attribute",
    )  # fmt: skip

    def asked(self) -> dict[str, float]:
        """The thresholds that are set, by name."""
        return {name: value for name, value in self if value is not None}


class Timeouts(Section):
    """Seconds."""

    round: float = Field(default=3600.0, gt=0, description="until a phase closes without the late")
    idle: float = Field(default=600.0, ge=0, description="a client without an order ends; 0 = one "
                        "order a process")  # fmt: skip
    poll: float = Field(default=1.0, gt=0, description="between looks at the exchange bucket")


class Plan(Section):
    """One run, whole."""

    name: Name
    purpose: Name = Field(description="what consent was given for; the site's policy lists them")
    seed: int = Field(ge=0)
    rounds: int = Field(ge=1)
    task: Task
    training: Training = Training()
    aggregation: Aggregation = Aggregation()
    cohort: Cohort = Cohort()
    privacy: Privacy = Privacy()
    secure_aggregation: SecureAggregation = SecureAggregation()
    compression: Compression = Compression()
    gates: Gates = Gates()
    timeouts: Timeouts = Timeouts()

    @field_validator("task")
    @classmethod
    def _modalities_by_name(cls, task: Task) -> Task:
        """The canonical plan, which the sites read, has them so; their order is a model's input."""
        return task.model_copy(update={"modalities": dict(sorted(task.modalities.items()))})

    @model_validator(mode="after")
    def _pretrains_what_there_is(self) -> Self:
        how = self.training.pretraining
        unknown = sorted(set(how.modalities) - set(self.task.modalities)) if how else []
        if unknown:
            raise ValueError(
                f"training: pretraining: {unknown[0]!r} is none of task.modalities "
                f"({', '.join(self.task.modalities)})"
            )
        return self

    @model_validator(mode="after")
    def _combines(self) -> Self:
        faults = list(illegal_combinations(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def division_of_updates(self) -> dict[str, Any]:
        """What of this plan ``privacy.division.division`` asks for."""
        rule = self.secure_aggregation
        return {
            "mode": rule.mode,
            "bound": self.privacy.clip_norm or 0.0,  # a secure plan without it is refused
            "bits": rule.bits,
            "encrypt": rule.encrypt,
            "share": rule.encrypt_share,
            "rest": rule.rest,
            "noise_multiplier": self.privacy.noise_multiplier if self.noise_in_shares else 0.0,
            "threshold": rule.threshold,
        }

    def coding(self, way: Literal["up", "down"], round_num: int) -> dict[str, Any]:
        """What of this plan ``compression.chain.chain`` asks for in that round."""
        compression = self.compression
        stages = compression.stages(way, self.rounds - 1 - round_num)
        # On the way down the next change makes good what this one lost, on the way up feedback.
        return {
            "stages": [stage.model_dump() for stage in stages],
            "unbiased": way == "up" and not compression.feedback,
        }

    @property
    def noise_in_shares(self) -> bool:
        """Whether each site adds a share of the sum's noise, behind its masks."""
        return self.privacy.noise_by == "sites"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every field, defaults included."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def canonical(self) -> bytes:
        """The plan as JSON with sorted keys: equal plans give equal bytes."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def load(path: Path) -> Plan:
    """Read a plan file. Raises ConfigError that names each fault with its line and the way out."""
    return yaml.load(path, Plan)


def parse(text: str, *, source: str = "plan") -> Plan:
    """Read a plan from YAML (or JSON) text. Raises ConfigError."""
    return yaml.parse(text, Plan, source=source)


def schema() -> Mapping[str, Any]:
    """The JSON schema of a plan file, for editors."""
    return Plan.model_json_schema()
