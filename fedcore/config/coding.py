"""The plan's compression: how params travel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedcore.config.section import Section


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
