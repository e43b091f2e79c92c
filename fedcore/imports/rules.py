"""The site's rules: which series is which modality, and what is never wanted.

``rules.yaml`` beside this file is the default, and says what each condition means.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedcore.config import yaml
from fedcore.config.section import Name, Section

_ENHANCED = re.compile(
    r"gado|(?<![a-z])(gd|post|ce|contrast|km)(?![a-z])|\+ ?(c|gd|km)(?![a-z])", re.I
)
_PLAIN = re.compile(r"(?<![a-z])(pre|native|nativ|without|w/?o|ohne)(?![a-z])", re.I)


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
Range = tuple[float, float]


@dataclass(frozen=True)
class Traits:
    """What rules look at. Times in ms, None where the header has none.

    ``modality``: DICOM's, or NIFTI.
    """

    modality: str
    description: str
    image_type: str = ""
    agent: str = ""
    te: float | None = None
    tr: float | None = None
    ti: float | None = None

    @property
    def enhanced(self) -> bool:
        """Whether a contrast agent was given."""
        if _PLAIN.search(self.description):
            return False
        return bool(self.agent) or bool(_ENHANCED.search(self.description))


class Conditions(Section):
    """All of those given must hold."""

    modality: list[str] | None = None
    description: Pattern | None = None
    image_type: Pattern | None = None
    contrast: bool | None = None
    te: Range | None = None
    tr: Range | None = None
    ti: Range | None = None

    def hold(self, series: Traits) -> bool:
        """Whether the series is meant."""
        if self.modality is not None and series.modality not in self.modality:
            return False
        if self.contrast is not None and self.contrast != series.enhanced:
            return False
        texts = ((self.description, series.description), (self.image_type, series.image_type))
        if any(wanted is not None and not re.search(wanted, has, re.I) for wanted, has in texts):
            return False
        spans = ((self.te, series.te), (self.tr, series.tr), (self.ti, series.ti))
        return all(
            span is None or (value is not None and span[0] <= value <= span[1])
            for span, value in spans
        )


class Skip(Conditions):
    """What is never wanted, and ``why`` in the report."""

    why: str


class ModalityRule(Conditions):
    """``into``: the BIDS folder and the file's name after ``sub-…_ses-…_``."""

    name: Name
    into: str = Field(pattern=r"^(anat|ct|pet)/([a-z]+-[A-Za-z0-9]+_)*[A-Za-z0-9]+$")


class MaskRule(Section):
    """The mask ``name`` is made of every structure whose name matches."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]
    structure: Pattern


class Rules(Section):
    """How a site's series become modalities."""

    min_slices: int = Field(default=5, ge=2)
    session_days: int = Field(default=90, ge=0)
    burned_in: Literal["quarantine", "flag"] = "quarantine"
    columns: tuple[str, ...] = ()
    skip: tuple[Skip, ...] = ()
    modalities: list[ModalityRule] = Field(min_length=1)
    masks: tuple[MaskRule, ...] = ()

    @property
    def digest(self) -> str:
        """Of what the rules say, not of how the file is written."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def unwanted(self, series: Traits) -> str | None:
        """Why the series is never wanted, or None."""
        return next((rule.why for rule in self.skip if rule.hold(series)), None)

    def modality(self, series: Traits) -> ModalityRule | None:
        """The rule that names the series."""
        return next((rule for rule in self.modalities if rule.hold(series)), None)

    def mask(self, structure: str) -> str | None:
        """What the mask of a structure of that name is called."""
        return next((r.name for r in self.masks if re.search(r.structure, structure, re.I)), None)


def load(path: Path | None) -> Rules:
    """The rules in a file, or the shipped ones. Raises ConfigError with the fault's line."""
    if path is not None:
        return yaml.load(path, Rules)
    return yaml.parse(shipped(), Rules, source="the shipped rules")


def shipped() -> str:
    """The text of the default rules."""
    return (importlib.resources.files(__package__) / "rules.yaml").read_text("utf-8")


def names(rules: Sequence[ModalityRule]) -> list[str]:
    """The modalities that rules can give, each once, in their order."""
    return list(dict.fromkeys(rule.name for rule in rules))
