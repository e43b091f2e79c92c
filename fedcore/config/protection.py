"""The plan's protection of subjects and sites: noise, and what the server sees of an update."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedcore.config.section import Section


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
