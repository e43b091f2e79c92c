"""The plan's task: what is learnt, from which images, prepared how."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from fedcore.config.section import Function, Name, Section, Size

Kind = Literal["mr", "ct", "pet", "oct", "fundus"]


class Modality(Section):
    """Where a subject's image of one modality lies, and how its intensities are to be read."""

    path: str = Field(description="glob below the subject's folder, e.g. anat/*_FLAIR.nii.gz")
    kind: Kind
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
    shape: Annotated[list[Size], Field(min_length=2, max_length=3)] | None = Field(
        default=None, description="oct: voxels of its grid; fundus: pixels, [X, Y]. MR, CT and PET "
        "share the grid of the dataset"
    )  # fmt: skip
    spacing_mm: Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)] | None = Field(
        default=None, description="oct: edges of a voxel, [X, Y, Z] with Y in depth"
    )

    @property
    def dimensions(self) -> int:
        """Of an image's space: a fundus photo has 2."""
        return 2 if self.kind == "fundus" else 3

    @property
    def channels(self) -> int:
        """Of an image: a fundus photo has 3 colours."""
        return 3 if self.kind == "fundus" else 1

    @property
    def shares_grid(self) -> bool:
        """Whether its place in the patient is known, so that all such images share one grid."""
        return self.kind in ("mr", "ct", "pet")

    @model_validator(mode="after")
    def _window_belongs(self) -> Self:
        if self.kind not in ("ct", "pet") and self.window is not None:
            raise ValueError(
                f"{self.kind.upper()} intensities are relative: window is for CT (HU) and PET (SUV)"
            )
        if self.kind in ("ct", "pet") and self.window is None:
            unit = "HU" if self.kind == "ct" else "SUV"
            raise ValueError(f"a {self.kind} modality needs window: [low, high] in {unit}")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError("window must be [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _landmarks_belong(self) -> Self:
        if self.kind != "mr" and self.normalise != "z-score":
            raise ValueError(f"normalise is for MR: {self.kind} has its own way")
        if (self.normalise == "nyul") != (self.landmarks is not None):
            raise ValueError(
                "normalise: nyul and landmarks go together: the standard is the plan's, so that "
                "sites and serving share it; `fedcore site landmarks` learns one"
            )
        if self.landmarks is not None and any(a >= b for a, b in pairwise(self.landmarks)):
            raise ValueError("landmarks must rise: they are percentiles")
        return self

    @model_validator(mode="after")
    def _grid_belongs(self) -> Self:
        if self.shares_grid and (self.shape is not None or self.spacing_mm is not None):
            raise ValueError(
                f"shape and spacing_mm here are for oct and fundus: {self.kind} shares the grid of "
                "task.preprocessing, or of the dataset's arguments"
            )
        sizes = len(self.shape or ())
        if self.kind == "oct" and (sizes != 3 or self.spacing_mm is None):
            raise ValueError(
                "an oct modality needs a grid of its own: shape: [X, Y, Z] and spacing_mm: "
                "[X, Y, Z], with Y in depth"
            )
        if self.kind == "fundus" and (sizes != 2 or self.spacing_mm is not None):
            raise ValueError(
                "a fundus modality needs shape: [X, Y] in pixels and no spacing_mm: a photo says "
                "nothing of millimetres, its field of view fills the shape"
            )
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


class Structure(Section):
    """Where the outline of one structure lies, beside a subject's images."""

    path: str = Field(description="glob below the subject's folder in target.folder, e.g. "
                      "anat/*_label-tumour_mask.nii.gz")  # fmt: skip
    values: list[Annotated[int, Field(gt=0)]] | None = Field(
        default=None, min_length=1, description="of a file with several structures, those of this "
        "one; unset = all above 0"
    )  # fmt: skip
    least_voxels: int = Field(
        default=0, ge=0, description="of the grid: where a model calls fewer of a subject's voxels "
        "this, none of it was found"
    )  # fmt: skip


class Target(Section):
    """What a segmentation learns: each voxel's class. Unset, a task learns the subject's class."""

    kind: Literal["mask"] = "mask"
    folder: str = Field(
        default="derivatives/fedcore/masks", description="below the dataset's prefix; where "
        "`fedcore site import` puts them"
    )  # fmt: skip
    drawn_on: Name | None = Field(
        default=None, description="modality whose image the outlines were drawn on: they go where "
        "it is aligned to; unset = where the scanner says that they are"
    )  # fmt: skip
    structures: dict[str, Structure] = Field(
        description="one for each class but the first, which is the background; where two "
        "overlap, the later class has it"
    )  # fmt: skip


_OVERLAP = "fedcore.evaluation.overlap"
_DICE_CE = "fedcore.training.losses:dice_ce"


class Metrics(Section):
    """How a site counts (additive statistics) and how the server sums that up."""

    collect: Function = Function(function="fedcore.evaluation.metrics:collect")
    summarise: Function = Function(function="fedcore.evaluation.metrics:summarise")
    reconstruction: bool = Field(
        default=False, description="also by modality the mean squared error of the images that the "
        "model reconstructs, of a model that does"
    )  # fmt: skip
    memorisation: int = Field(
        default=0, ge=0, description="at the end also how near so many subjects whom the model "
        "draws come to those trained on and to those held out; 0 = not counted"
    )  # fmt: skip


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
    target: Target | None = Field(
        default=None, description="set: a segmentation. Unset: the subject's class, which the "
        "dataset has"
    )  # fmt: skip
    loss: Function = Function(function="torch.nn.functional:cross_entropy")
    metrics: Metrics = Metrics()

    @model_validator(mode="before")
    @classmethod
    def _segmentations_have_their_own(cls, fields: Any) -> Any:
        """Loss and metrics that are not named are those of what is learnt."""
        if not isinstance(fields, Mapping) or fields.get("target") is None:
            return fields
        metrics = {of: {"function": f"{_OVERLAP}:{of}"} for of in ("collect", "summarise")}
        return {"loss": {"function": _DICE_CE}, "metrics": metrics, **fields}

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if "present" in self.modalities:
            raise ValueError("modalities: 'present' names the mask of a batch; take another name")
        return self

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        target = self.target
        if target is None:
            return self
        if list(target.structures) != self.classes[1:]:
            raise ValueError(
                f"target: structures ({', '.join(target.structures)}) must be the classes after "
                f"the first, which is the background ({', '.join(self.classes[1:])}), in order"
            )
        apart = [name for name, modality in self.modalities.items() if not modality.shares_grid]
        if apart:
            raise ValueError(
                f"target: outlines lie on the grid that mr, ct and pet share, and {apart[0]} has "
                "its own; leave it out"
            )
        if target.drawn_on is not None and target.drawn_on not in self.modalities:
            raise ValueError(
                f"target: drawn_on {target.drawn_on!r} is none of the modalities "
                f"({', '.join(self.modalities)})"
            )
        how = self.preprocessing
        if how is not None and how.align != "none" and target.drawn_on is None:
            raise ValueError(
                f"target: with preprocessing.align: {how.align} images move, and nobody knows with "
                "which one an outline does; set drawn_on"
            )
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
        if how.reference is not None and not self.modalities[how.reference].shares_grid:
            raise ValueError(
                f"preprocessing: reference {how.reference!r} has a grid of its own; it must be an "
                "mr, ct or pet modality"
            )
        for field in ("shape", "spacing_mm"):
            if getattr(how, field) is not None and field in self.dataset.arguments:
                raise ValueError(
                    f"preprocessing: {field} is among the dataset's arguments too; give it once"
                )
        return self

    @property
    def least_voxels(self) -> list[int]:
        """By class, ``least_voxels`` of its structure; nothing of a classification."""
        if self.target is None:
            return []
        return [0, *(of.least_voxels for of in self.target.structures.values())]

    def functions(self) -> list[str]:
        """Every importable name that a client will call for this task."""
        return [self.model.function, self.dataset.function, self.loss.function,
                self.metrics.collect.function]  # fmt: skip
