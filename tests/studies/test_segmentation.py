"""The study of segmentation: its plans, how it judges, and the real patients as sites."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from studies import segmentation as study
from studies.federation import data_of
from studies.patients import patients

SIDE = 16
"""Voxels of a made patient, of 4 mm."""


def box(at: int) -> NDArray[np.bool_]:
    """A tumour of 5 × 6 × 6 voxels."""
    inside = np.zeros((SIDE,) * 3, bool)
    inside[at : at + 5, 5:11, 5:11] = True
    return inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients as ``shared/data`` has them, whose tumours lie 2 voxels apart."""
    rng = np.random.default_rng(0)
    for name, tumour in (("STS_001", box(4)), ("STS_002", box(6))):
        for modality, bright in (("CT", 300.0), ("PET", 10.0), ("MR_T1", 100.0)):
            image = bright * (tumour + rng.uniform(0.05, 0.2, tumour.shape))
            place = tmp_path / name / modality / "nifti"
            place.mkdir(parents=True)
            for what, voxels in (("image", image), ("mask", tumour)):
                written = nibabel.Nifti1Image(voxels.astype(np.float32), np.diag([4.0, 4, 4, 1]))
                (place / f"{what}.nii.gz").write_bytes(gzip.compress(written.to_bytes()))
    return tmp_path


def tiny() -> Plan:
    """The patients' plan on their grid, with less to train."""
    fields = study.of_patients().model_dump(mode="json")
    fields["rounds"] = 10
    fields["task"]["dataset"]["arguments"] |= {"shape": [SIDE] * 3, "spacing_mm": 4.0}
    fields["task"]["model"]["arguments"] = {"width": 4, "scales": 2}
    fields["training"]["learning_rate"] = 0.02
    return Plan.model_validate(fields)


def test_the_small_plan_is_the_shipped_one_on_another_grid() -> None:
    shipped, small = plans.load(study.PLAN), study.small(seed=shipped_seed())
    grid = small.task.dataset.arguments
    assert math.prod(grid["shape"]) < math.prod(shipped.task.dataset.arguments["shape"])
    assert small.task.least_voxels == [0, 0, 0], "voxels of another size"
    same = small.task.model_copy(
        update={"dataset": shipped.task.dataset, "target": shipped.task.target}
    )
    assert small.model_copy(update={"task": same}) == shipped


def shipped_seed() -> int:
    return plans.load(study.PLAN).seed


def test_the_federated_method_is_judged_in_dice() -> None:
    def of(*dice: float) -> list[dict[str, float]]:
        return [{"dice": value, "specificity": 0.5} for value in dice]

    found = {
        study.FEDERATED: of(0.76, 0.8),
        study.CENTRALISED: of(0.8, 0.8),
        "north alone": of(0.7, 0.72),
        "west alone": of(0.2, 0.3),
    }
    goals = {row.metric: row for row in study.judged(found) if row.goal is not None}
    assert goals["share of centralised dice"].mean == pytest.approx(0.975)
    assert goals["share of centralised dice"].met
    assert goals["dice above the best single site"].mean == pytest.approx(0.07)
    worse = study.judged({**found, study.FEDERATED: of(0.7, 0.7)})
    assert [row.met for row in worse if row.goal is not None] == [False, False]
    assert [row.mean for row in worse if row.metric == "specificity"] == [0.5] * 4


def test_a_patient_is_a_site_with_all_modalities_and_the_outline(folder: Path) -> None:
    found = data_of(tiny(), patients(folder))
    assert list(found) == ["STS_001", "STS_002"]
    for name, at in (("STS_001", 4), ("STS_002", 6)):
        (example,) = found[name]["train"].examples
        assert set(example.images) == {"ct", "pet", "t1"}
        assert np.array_equal(example.target.numpy(), box(at))


def test_without_the_folder_there_are_no_patients(tmp_path: Path) -> None:
    assert patients(tmp_path / "nowhere") == {}


def test_a_model_of_one_patient_outlines_the_other(folder: Path) -> None:
    """Better than the outline of the one, moved nowhere: the two share 3 of 5 slices."""
    rows = study.smoke(tiny(), patients(folder))
    learnt, copied = rows[::2], rows[1::2]
    assert [row.mean for row in copied] == [0.6, 0.6]
    assert min(row.mean for row in learnt) > 0.8
    assert {row.setting for row in rows} == {"real patients, smoke test"}
