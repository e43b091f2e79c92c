"""The plan: what one run does, as a file that people read, review and sign off.

The plan's digest names it. A site may allow a plan by digest, so every field that changes what a
site is asked to do belongs in here, and nothing else (addresses are in the federation file).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fedcore.config import yaml
from fedcore.config.rules import illegal_combinations

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""Lower case, digits and dashes, at most 40: it becomes part of object keys and of Job names."""

Importable = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""``package.module:function``."""

Size = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a file: unknown fields are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Function(Section):
    """An importable function and the keyword arguments it is called with."""

    function: Importable
    arguments: dict[str, Any] = Field(default_factory=dict)


class Modality(Section):
    """Where a subject's image of one modality lies, and how its intensities are to be read."""

    path: str = Field(description="glob below the subject's folder, e.g. anat/*_FLAIR.nii.gz")
    kind: Literal["mr", "ct", "pet"]
    window: tuple[float, float] | None = Field(
        default=None, description="CT: HU window; PET: SUV range. Mapped to [0, 1] and clipped"
    )
    normalise: Literal["z-score", "nyul"] = Field(
        default="z-score", description="MR; CT and PET have their window. nyul: the histogram "
        "onto that of landmarks (Nyúl et al. 2000)"
    )  # fmt: skip
    landmarks: Annotated[list[float], Field(min_length=11, max_length=11)] | None = Field(
        default=None, description="nyul: where the 1st, 10th, 20th … 90th and 99th percentile go; "
        "`fedcore site landmarks` learns them"
    )  # fmt: skip

    @model_validator(mode="after")
    def _window_belongs(self) -> Self:
        if self.kind == "mr" and self.window is not None:
            raise ValueError("MR intensities are relative: window is for CT (HU) and PET (SUV)")
        if self.kind != "mr" and self.window is None:
            unit = "HU" if self.kind == "ct" else "SUV"
            raise ValueError(f"a {self.kind} modality needs window: [low, high] in {unit}")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError("window must be [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _landmarks_belong(self) -> Self:
        if self.kind != "mr" and self.normalise != "z-score":
            raise ValueError(f"normalise is for MR: a {self.kind} modality has its window")
        if (self.normalise == "nyul") != (self.landmarks is not None):
            raise ValueError(
                "normalise: nyul and landmarks go together: the standard is the plan's, so that "
                "sites and serving share it; `fedcore site landmarks` learns one"
            )
        if self.landmarks is not None and any(a >= b for a, b in pairwise(self.landmarks)):
            raise ValueError("landmarks must rise: they are percentiles")
        return self


class Preprocessing(Section):
    """What becomes of a subject's images before a model sees them, at every site and in serving.

    The steps, in this order: orient, align to the reference, brain mask, resample and crop or pad
    to the grid, normalise. See ``docs/preprocessing.md``.
    """

    shape: Annotated[list[Size], Field(min_length=3, max_length=3)] | None = Field(
        default=None, description="voxels of the grid; unset = the dataset's argument"
    )
    spacing_mm: float | None = Field(
        default=None, gt=0, description="edge of a voxel; unset = the dataset's argument"
    )
    reference: Name | None = Field(
        default=None, description="modality whose place the others take; unset, or where a subject "
        "lacks it, the first that the subject has"
    )  # fmt: skip
    align: Literal["none", "rigid", "affine"] = Field(
        default="none", description="to the reference, by mutual information; none = where the "
        "scanner says that they are"
    )  # fmt: skip
    doubtful: Literal["leave_out", "as_scanned"] = Field(
        default="leave_out", description="an image whose alignment nobody has looked at, and that "
        "the check flags: not used, or used where the scanner says that it is"
    )  # fmt: skip
    brain_mask: bool = Field(
        default=False, description="from the reference: MR is normalised in it, what is outside "
        "says nothing"
    )  # fmt: skip
    centre: Literal["image", "brain"] = Field(
        default="image", description="where the grid's middle lies: of the reference's field of "
        "view, or of the brain mask"
    )  # fmt: skip

    @model_validator(mode="after")
    def _centre_is_known(self) -> Self:
        if self.centre == "brain" and not self.brain_mask:
            raise ValueError("centre: brain needs brain_mask: true")
        return self


class Metrics(Section):
    """How a site counts (additive statistics) and how the server sums that up."""

    collect: Function = Function(function="fedcore.evaluation.metrics:collect")
    summarise: Function = Function(function="fedcore.evaluation.metrics:summarise")


class Task(Section):
    """What is learnt, from what. ``model``, ``dataset``, ``loss``, ``metrics`` may be one's own."""

    classes: list[str] = Field(min_length=2)
    modalities: dict[Name, Modality] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = Field(
        default=None, description="set: what is prepared is kept at the site. Unset: onto the "
        "dataset's grid in world coordinates, each time anew"
    )  # fmt: skip
    groups: list[str] = Field(
        default=[], description="attributes of a subject by which metrics are split, e.g. sex"
    )
    model: Function
    dataset: Function
    loss: Function = Function(function="torch.nn.functional:cross_entropy")
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if "present" in self.modalities:
            raise ValueError("modalities: 'present' names the mask of a batch; take another name")
        return self

    @model_validator(mode="after")
    def _preprocessing_fits(self) -> Self:
        how = self.preprocessing
        if how is None:
            return self
        if how.reference is not None and how.reference not in self.modalities:
            raise ValueError(
                f"preprocessing: reference {how.reference!r} is none of the modalities "
                f"({', '.join(self.modalities)})"
            )
        for field in ("shape", "spacing_mm"):
            if getattr(how, field) is not None and field in self.dataset.arguments:
                raise ValueError(
                    f"preprocessing: {field} is among the dataset's arguments too; give it once"
                )
        return self

    def functions(self) -> list[str]:
        """Every importable name that a client will call for this task."""
        return [self.model.function, self.dataset.function, self.loss.function,
                self.metrics.collect.function]  # fmt: skip


class Training(Section):
    """One site's local training in one round."""

    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    proximal_mu: float = Field(default=0.0, ge=0, description="FedProx (Li et al. 2020); 0 = off")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: bool = False
    threads: int = Field(
        default=1, ge=1, description="CPU threads; part of the plan because sums depend on it"
    )


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


class Cohort(Section):
    """Who takes part in a round."""

    size: int | None = Field(default=None, ge=1, description="sites per round; none = all")
    min_clients: int = Field(default=1, ge=1, description="fewer usable replies end the round")


class AdaptiveClipping(Section):
    """The norm that updates are clipped to follows a quantile of theirs (Andrew et al. 2021)."""

    quantile: float = Field(
        default=0.5, gt=0, lt=1, description="share of the updates that are to stay whole"
    )
    learning_rate: float = Field(default=0.2, gt=0)
    noise_multiplier: float = Field(
        gt=0, description="of the count of updates that stayed whole; it is released each round"
    )
    initial: float | None = Field(
        default=None, gt=0, description="norm of the first round; unset = clip_norm"
    )


class SubjectPrivacy(Section):
    """DP-SGD (Abadi et al. 2016) at the sites: what one subject adds to a step is clipped and
    hidden by noise. All of a subject's scans are one example."""

    clip_norm: float = Field(gt=0, description="of one subject's gradient")
    noise_multiplier: float = Field(gt=0, description="of each local step")
    sampling_rate: float = Field(
        gt=0, le=1, description="with this probability a subject is in a step (Poisson)"
    )
    steps: int = Field(
        ge=1, description="local steps of one round; replaces training.epochs and batch_size"
    )


class Privacy(Section):
    """Clipping and noise: the site-level Gaussian mechanism. Zero noise gives no guarantee."""

    clip_norm: float | None = Field(default=None, gt=0)
    adaptive: AdaptiveClipping | None = Field(
        default=None, description="clip_norm is then what the sites clip to, and the largest norm "
        "that the server does"
    )  # fmt: skip
    noise_multiplier: float = Field(default=0.0, ge=0)
    target_delta: float = Field(default=1e-5, gt=0, lt=1)
    noise_by: Literal["server", "sites"] = Field(
        default="server", description="who adds the noise to a sum: the server, which sees it "
        "before; or each site a share, behind masks, so that nobody sees a sum without noise"
    )  # fmt: skip
    noise_source: Literal["os", "seeded"] = Field(
        default="os", description="seeded is for comparisons and tests: whoever knows the seed "
        "can subtract the noise"
    )  # fmt: skip
    subject: SubjectPrivacy | None = Field(
        default=None, description="privacy of single subjects, by DP-SGD; unset = none"
    )


class SecureAggregation(Section):
    """What the server sees of a site's update: all of it, or only the sum over the sites."""

    mode: Literal["none", "masks", "ckks"] = Field(
        default="none", description="masks: Bonawitz et al. 2017; ckks: homomorphic encryption"
    )
    bits: int = Field(
        default=20,
        ge=8,
        le=32,
        description="of one site's value in fixed point; ckks: its precision",
    )
    threshold: int | None = Field(
        default=None, ge=2, description="sites that must stay to the end of a round; unset = more "
        "than two thirds of those that began it"
    )  # fmt: skip
    neighbours: int | None = Field(
        default=None, ge=2, description="masks: with how many others a site shares masks (Bell et "
        "al. 2020); unset = with all"
    )  # fmt: skip
    encrypt: list[str] = Field(
        default=["*"], min_length=1, description="ckks: patterns of parameter names to encrypt"
    )
    encrypt_share: float = Field(
        default=1.0, gt=0, le=1, description="ckks: only this share of those, the most revealing"
    )
    rest: Literal["masked", "plain"] = Field(
        default="masked", description="ckks: how what is not encrypted travels"
    )
    statistics: bool = Field(
        default=False, description="evaluation statistics are summed behind masks too: no figure "
        "by site or by group then, only over all sites"
    )  # fmt: skip

    @property
    def selective(self) -> bool:
        """Whether ckks would encrypt some values only."""
        return self.encrypt != ["*"] or self.encrypt_share < 1

    @property
    def masked(self) -> bool:
        """Whether anything of an update travels behind masks."""
        rest = self.mode == "ckks" and self.selective and self.rest == "masked"
        return self.mode == "masks" or rest


class LowRank(Section):
    """Of each matrix, the product of two of so many columns (PowerSGD)."""

    stage: Literal["low_rank"]
    rank: int = Field(ge=1)


class Subsample(Section):
    """One value in so many, the others' turn is in the rounds that follow."""

    stage: Literal["subsample"]
    every: int = Field(ge=2)


class TopK(Section):
    """This share of the values, the largest."""

    stage: Literal["top_k"]
    share: float = Field(gt=0, lt=1)


class Float16(Section):
    """Half precision."""

    stage: Literal["float16"]


class Quantise(Section):
    """Each value in so many bits; ``rotate`` mixes them first."""

    stage: Literal["quantise"]
    bits: int = Field(ge=1, le=8)
    rotate: bool = False


CodingStage = Annotated[
    LowRank | Subsample | TopK | Float16 | Quantise, Field(discriminator="stage")
]


class LastRounds(Section):
    """Other stages for the last rounds, as what is lost there is never made good. Unset: the same.

    An empty list sends float32.
    """

    rounds: int = Field(default=1, ge=1)
    up: list[CodingStage] | None = None
    down: list[CodingStage] | None = None


class Compression(Section):
    """How params travel: stages one after the other, each coding what the last one left."""

    up: list[CodingStage] = Field(default=[], description="of a site's update; none = float32")
    down: list[CodingStage] = Field(
        default=[], description="of what a round changed in the params; none = the whole params"
    )
    feedback: bool = Field(
        default=False, description="a site adds what coding lost of its update to its next one"
    )
    container: Literal["none", "zstd"] = Field(
        default="none", description="lossless, around every reply, change and export"
    )
    last: LastRounds | None = None

    @property
    def compress(self) -> bool:
        """Whether there is a container."""
        return self.container != "none"

    def stages(self, way: Literal["up", "down"], rounds_left: int) -> list[CodingStage]:
        """Of a round after which so many follow."""
        last = None
        if self.last is not None and rounds_left < self.last.rounds:
            last = getattr(self.last, way)
        usual: list[CodingStage] = getattr(self, way)
        return usual if last is None else last


class Gates(Section):
    """What a model must reach on the sites' held-out subjects to be promoted. Unset = not asked."""

    min_macro_auc: float | None = Field(default=None, ge=0, le=1)
    min_accuracy: float | None = Field(default=None, ge=0, le=1)
    min_sensitivity: float | None = Field(default=None, ge=0, le=1)
    min_specificity: float | None = Field(default=None, ge=0, le=1)
    min_site_auc: float | None = Field(default=None, ge=0, le=1, description="of the worst site")
    max_group_gap: float | None = Field(
        default=None, ge=0, le=1,
        description="largest difference in macro AUC between two groups of one attribute",
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
