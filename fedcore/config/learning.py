"""The plan's rounds: how a site trains, who takes part, and what becomes of the updates."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedcore.aggregation.statistics import GROUPS, MOMENTS
from fedcore.config.section import Section, Size


class Start(Section):
    """Params of round 0 that another training made, in place of random ones."""

    file: str = Field(description="safetensors, by `fedcore params import`; the server reads it")
    digest: str = Field(
        pattern="^[0-9a-f]{64}$", description="of those params; each site compares it with what it "
        "is sent"
    )  # fmt: skip
    params: list[str] = Field(
        min_length=1, description="patterns of names of the params that it holds"
    )

    def takes(self, name: str) -> bool:
        """Whether the param of this name is taken from the file."""
        return any(fnmatchcase(name, pattern) for pattern in self.params)


class Pretraining(Section):
    """Encoders that learn to reconstruct a site's own images before they learn the task there."""

    modalities: list[str] = Field(min_length=1, description="whose encoders, e.g. pet")
    epochs: int = Field(default=10, ge=1, description="over the images, in each of the rounds")
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam")
    rounds: int = Field(default=1, ge=1, description="of the run's first rounds, which begin so")


class GroupFairness(Section):
    """Training that serves the groups of one attribute alike (docs/fairness.md)."""

    attribute: str = Field(description="one of task.groups, e.g. sex")
    method: Literal["reweigh", "dro"] = Field(
        description="reweigh: every group of a site counts the same; dro: the groups with the "
        "larger loss over all sites count more (group DRO, Sagawa et al. 2020)"
    )  # fmt: skip
    groups: list[str] = Field(
        default=[], description="dro: the attribute's values, whose losses the sites tell"
    )
    step: float = Field(default=0.1, gt=0, description="dro: how fast the groups' weights move")

    @model_validator(mode="after")
    def _groups_belong(self) -> Self:
        if self.method == "dro" and len(set(self.groups)) < max(2, len(self.groups)):
            raise ValueError("method: dro needs groups, two or more and each once")
        idle = self.groups or self.step != type(self).model_fields["step"].default
        if self.method == "reweigh" and idle:
            raise ValueError("groups and step have no effect with method: reweigh; remove them")
        return self


class Alignment(Section):
    """Features of all sites alike, by moments that they share (docs/heterogeneity.md)."""

    layer: str = Field(
        default="head.classify.1", description="the linear layer whose input is made alike"
    )
    weight: float = Field(default=1.0, gt=0, description="of the term beside the loss")


class Augmentation(Section):
    """Images varied in training, as scanners that no site has show them (docs/heterogeneity.md)."""

    gamma: float = Field(
        default=0.3, ge=0, description="MR: brightness becomes brightness ** g; standard deviation "
        "of log g"
    )  # fmt: skip
    shading: float = Field(
        default=0.2, ge=0, description="MR: standard deviation of the logarithm of a smooth field"
    )
    scale: float = Field(
        default=0.1, ge=0, description="PET: standard deviation of the logarithm of a factor"
    )
    noise: float = Field(
        default=0.2, ge=0, description="at most, in standard deviations of the image"
    )
    blur: float = Field(
        default=1.0, ge=0, le=1, description="at most so much of a mean over three voxels an axis"
    )

    @model_validator(mode="after")
    def _varies(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all fields are 0, which varies nothing; remove augment")
        return self


class Patches(Section):
    """Parts of the grid, where a whole one does not fit into memory (docs/segmentation.md)."""

    shape: Annotated[list[Size], Field(min_length=3, max_length=3)] = Field(
        description="voxels: of what the model takes, in training and ever after"
    )
    per_subject: int = Field(
        default=1, ge=1, description="of each subject in an epoch, in batches with other subjects'"
    )
    foreground: float = Field(
        default=0.5, ge=0, le=1, description="share of the patches that lie around a voxel of a "
        "structure, of each that the subject has as often; the others lie anywhere"
    )  # fmt: skip
    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="of neighbouring windows along an axis, where a whole "
        "grid is evaluated or served"
    )  # fmt: skip


class Training(Section):
    """One site's local training in one round."""

    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    proximal_mu: float = Field(default=0.0, ge=0, description="FedProx (Li et al. 2020); 0 = off")
    scaffold: bool = Field(
        default=False, description="SCAFFOLD (Karimireddy et al. 2020): steps corrected by control "
        "variates; doubles the bytes down, not those up"
    )  # fmt: skip
    local: list[str] = Field(
        default=[], description="patterns of names of params that stay at the site: never sent, "
        "never averaged. FedBN: the normalisation's; FedRep: the head's"
    )  # fmt: skip
    local_epochs: int = Field(
        default=0, ge=0, description="FedRep: epochs over the local params alone, before `epochs` "
        "over the shared ones alone; 0 = all params together"
    )  # fmt: skip
    start: Start | None = Field(
        default=None, description="params that the run begins with; unset = random ones"
    )
    freeze: list[str] = Field(
        default=[], description="patterns of names of params that stay as they begin, e.g. "
        "encoder.pet.*"
    )  # fmt: skip
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="pattern of names of params → by what learning_rate is multiplied "
        "for them; by all, where several match"
    )  # fmt: skip
    pretraining: Pretraining | None = Field(
        default=None, description="encoders that begin by reconstruction; unset = none"
    )
    imbalance: Literal["none", "class_weights", "logit_adjustment"] = Field(
        default="none", description="by the site's own counts of classes. class_weights: every "
        "class counts the same; logit_adjustment: Menon et al. 2021"
    )  # fmt: skip
    fairness: GroupFairness | None = Field(
        default=None, description="groups of subjects that are to be served alike; unset = none"
    )
    alignment: Alignment | None = Field(
        default=None, description="a term that makes the sites' features alike; unset = none"
    )
    augment: Augmentation | None = Field(
        default=None, description="images varied as other scanners might show them; unset = as "
        "they are"
    )  # fmt: skip
    patches: Patches | None = Field(
        default=None, description="of a segmentation: what a step takes of a subject; unset = all"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: bool = False
    threads: int = Field(
        default=1, ge=1, description="CPU threads; part of the plan because sums depend on it"
    )

    def freezes(self, name: str) -> bool:
        """Whether the param of this name is not trained."""
        return any(fnmatchcase(name, pattern) for pattern in self.freeze)

    def rate_of(self, name: str) -> float:
        """The learning rate of the param of this name."""
        factors = (f for pattern, f in self.learning_rates.items() if fnmatchcase(name, pattern))
        return math.prod(sorted(factors), start=self.learning_rate)

    @property
    def visits(self) -> int:
        """How often an epoch takes something of each subject."""
        return 1 if self.patches is None else self.patches.per_subject

    @property
    def statistics(self) -> frozenset[str]:
        """What sites tell beside the weights, by name (``aggregation.statistics``)."""
        found = {MOMENTS} if self.alignment is not None else set()
        return frozenset(found | ({GROUPS} if self.is_dro else set()))

    @property
    def is_dro(self) -> bool:
        """Whether the groups' weights follow from all sites' losses."""
        return self.fairness is not None and self.fairness.method == "dro"

    def stays(self, name: str) -> bool:
        """Whether the param of this name stays at the site."""
        return any(fnmatchcase(name, pattern) for pattern in self.local)


class Cohort(Section):
    """Who takes part in a round."""

    size: int | None = Field(default=None, ge=1, description="sites per round; none = all")
    min_clients: int = Field(default=1, ge=1, description="fewer usable replies end the round")


class Aggregation(Section):
    """How the updates of a round become the next global params."""

    rule: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum"] = Field(
        default="mean", description="all but mean bear some sites that lie"
    )
    trim: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        default=None, description="trimmed_mean: sites cut at each end, as a number or a share"
    )
    byzantine: int | None = Field(
        default=None, ge=1, description="krum, multi_krum: how many sites may lie (f of n >= 2f+3)"
    )
    normalise: Literal["none", "steps"] = Field(
        default="none", description="steps: an update counts by the local step (FedNova, Wang et "
        "al. 2020), so that sites that take more do not pull the model their way"
    )  # fmt: skip
    effective_steps: float | None = Field(
        default=None, gt=0, description="normalise: how many steps a round goes then; unset = the "
        "weighted mean of the sites'"
    )  # fmt: skip
    fairness_q: float = Field(
        default=0.0, ge=0, description="q-FedAvg (Li et al. 2020): the larger, the more a site "
        "counts whose loss is larger; 0 = off"
    )  # fmt: skip
    weights: Literal["examples", "uniform"] = "examples"
    weight_cap: float | None = Field(
        default=None, gt=0, description="examples above this count as this many; bounds the weight"
    )
    server_optimizer: Literal["sgd", "adagrad", "adam", "yogi"] = Field(
        default="sgd", description="all but sgd adapt the step to each param (Reddi et al. 2021)"
    )
    server_learning_rate: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)
    server_second_momentum: float = Field(
        default=0.99, ge=0, lt=1, description="adam, yogi: of the squared mean updates"
    )
    server_tau: float = Field(
        default=1e-3, gt=0, description="adagrad, adam, yogi: the smaller, the more adaptive"
    )

    @property
    def fewest(self) -> int:
        """With fewer updates than this, the rule is none: it would be one site's word."""
        match self.rule:
            case "mean":
                return 1
            case "krum" | "multi_krum":
                return 2 * (self.byzantine or 1) + 3
            case "trimmed_mean" if isinstance(self.trim, int):
                return 2 * self.trim + 1
            case _:
                return 3
