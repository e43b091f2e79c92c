"""Which series is which, by the shipped rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcore.errors import ConfigError
from fedcore.imports import rules
from fedcore.imports.reasons import REMEDIES, Reason, remedy
from fedcore.imports.rules import Traits

SHIPPED = rules.load(None)


@pytest.mark.parametrize(("description", "agent", "name"), [
    ("t1_mprage_sag_p2_iso", "", "t1"),
    ("AX T1 POST GAD", "", "t1ce"),
    ("3D T1 +C", "", "t1ce"),
    ("SAG MPRAGE", "Gadovist", "t1ce"),
    ("T1 SE nativ", "Gadovist", "t1"),
    ("Ax T2 FLAIR FS", "", "flair"),
    ("t2_tirm_tra_dark-fluid", "", "flair"),
    ("T1 FLAIR post", "", "flair"),
    ("Ax T2 FSE", "", "t2"),
    ("t2_space_sag", "", "t2"),
    ("T2* GRE", "", None),
    ("FSE PD AXIAL OBL", "", "pd"),
    ("IBSI_1_STS_001_MR_T1_image", "", "t1"),
    ("ep2d_diff ADC", "", "diffusion"),
    ("localizer", "", "localizer"),
    ("perf_dsc", "", "perfusion or function"),
    ("unheard of", "", None),
])  # fmt: skip
def test_mr_by_its_description(description: str, agent: str, name: str | None) -> None:
    series = Traits("MR", description, agent=agent)
    found = SHIPPED.modality(series)
    assert (SHIPPED.unwanted(series) or (found.name if found else None)) == name


@pytest.mark.parametrize(("te", "tr", "ti", "agent", "name"), [
    (120, 9000, 2500, "", "flair"), (12, 500, None, "", "t1"), (12, 500, None, "Gd", "t1ce"),
    (3, 2300, 900, "", "t1"), (95, 4000, None, "", "t2"), (15, 3000, None, "", "pd"),
    (60, 1000, None, "", None), (None, None, None, "", None),
])  # fmt: skip
def test_mr_by_its_sequence(
    te: float | None, tr: float | None, ti: float | None, agent: str, name: str | None
) -> None:
    found = SHIPPED.modality(Traits("MR", "series 5", agent=agent, te=te, tr=tr, ti=ti))
    assert (found.name if found else None) == name


def test_a_site_s_own_file_with_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(rules.shipped().replace("min_slices: 5", "min_slices: 9"))
    assert rules.load(path).min_slices == 9
    assert rules.load(path).digest != SHIPPED.digest
    path.write_text(rules.shipped().replace("'flair|dark.?fluid|tirm'", "'(flair'"))
    with pytest.raises(ConfigError, match=r"rules.yaml:\d+: modalities.0.description: not a reg"):
        rules.load(path)
    path.write_text("modalities: [{name: ct, into: ../ct/ct}]")
    with pytest.raises(ConfigError, match=r"into"):
        rules.load(path)


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Reason)
    assert remedy("truncated").endswith(".")
