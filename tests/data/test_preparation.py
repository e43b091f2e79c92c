"""One pipeline: what it does, what it says that it did, and what it leaves to a human."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from heads import displacement, head, nifti_of, scan, task
from numpy.testing import assert_array_equal

from fedcore.data import album, alignment, preparation
from fedcore.data.nifti import Volume
from fedcore.data.preparation import Pipeline, prepare
from fedcore.errors import ConfigError

GOOD = {"before": 0.2, "after": 0.4, "peak": 1.9, "overlap": 0.9, "shift_mm": 4.0,
        "turn_degrees": 3.0, "stretch": 0.0}  # fmt: skip


def pipeline(*names: str, **preprocessing: Any) -> Pipeline:
    return Pipeline.of(task(*names, **preprocessing))


def files(*names: str, person: int = 0) -> dict[str, bytes]:
    return {name: scan(person, name) for name in names}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What every alignment finds, so that none needs to be computed."""
    said: dict[str, Any] = {"matrix": displacement(), "measures": GOOD}
    monkeypatch.setattr(alignment, "align", lambda *_: (said["matrix"], said["measures"]))
    return said


def steps(prepared: preparation.Prepared, modality: str) -> dict[str, Any]:
    entry = next(e for e in prepared.history if e["modality"] == modality)
    return {step["step"]: step for step in entry["steps"]}


def test_a_moved_image_is_brought_back_and_the_history_tells_how() -> None:
    moved = {"t1ce": scan(0, "t1ce"), "flair": scan(0, "flair", 11.0)}
    aligned = prepare(pipeline("t1ce", "flair", reference="t1ce", align="rigid"), moved)
    left = prepare(pipeline("t1ce", "flair", reference="t1ce"), moved)
    still = prepare(pipeline("t1ce", "flair", reference="t1ce"), files("t1ce", "flair"))
    assert aligned.doubts == ()
    apart = [np.abs(p.images["flair"] - still.images["flair"]).mean() for p in (left, aligned)]
    assert apart[1] < apart[0] / 4
    did = steps(aligned, "flair")
    assert list(did) == ["orient", "align", "resample", "normalise"]
    assert did["align"]["to"] == "t1ce"
    assert did["align"]["measures"]["turn_degrees"] == pytest.approx(10.5, abs=1)
    assert did["align"]["libraries"]["SimpleITK"]
    assert all(step["version"] == preparation.STEPS[name] for name, step in did.items())
    assert list(steps(aligned, "t1ce")) == ["orient", "resample", "normalise"]
    assert any("rigid to t1ce" in line for line in album.told(aligned.history[0]))


def test_a_mask_goes_where_its_image_went(found: dict[str, Any]) -> None:
    """One voxel of the grid apart at most, from the outline of the unmoved image."""
    volume = head(0, "flair")
    lesion = np.zeros_like(volume.voxels)
    lesion[20:34, 30:44, 26:40] = 1
    how = pipeline("t1ce", "flair", reference="t1ce", align="rigid", spacing_mm=3.0,
                   shape=[60, 72, 60])  # fmt: skip
    still = Volume(lesion, volume.affine)
    elsewhere = Volume(lesion, displacement() @ volume.affine)
    image = nifti_of(Volume(volume.voxels, displacement() @ volume.affine))
    came = prepare(how, {"t1ce": scan(0, "t1ce"), "flair": image})
    found["matrix"] = np.eye(4)
    stayed = prepare(how, files("t1ce", "flair"))
    one = album.carried(came, "flair", elsewhere)
    other = album.carried(stayed, "flair", still)
    assert one.dtype == bool
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.97
    assert other.sum() == pytest.approx(lesion.sum(), rel=0.05)
    with pytest.raises(ValueError, match="no image of pet"):
        album.carried(came, "pet", still)


def test_without_its_reference_a_subject_has_its_first_image_as_one(found: dict[str, Any]) -> None:
    how = pipeline("t1ce", "flair", "ct", reference="t1ce", align="rigid")
    made = prepare(how, files("ct", "flair"))
    assert {entry["reference"] for entry in made.history} == {"ct"}
    broken = prepare(how, {**files("ct", "flair"), "t1ce": b"no image"})
    assert broken.left_out["t1ce"][0] == "not NIfTI"
    assert_array_equal(broken.images["flair"], made.images["flair"])
    assert steps(made, "flair")["align"]["to"] == "ct"


def test_the_reference_gives_the_grid_and_the_plan_the_order() -> None:
    made = prepare(pipeline("ct", "flair", reference="flair"), files("ct", "flair"))
    assert list(made.images) == ["ct", "flair"]
    assert {entry["reference"] for entry in made.history} == {"flair"}


def test_a_doubtful_image_is_left_out_until_a_human_says_what_it_is(found: dict[str, Any]) -> None:
    found["measures"] = GOOD | {"peak": 1.1}
    how = pipeline("t1ce", "flair", reference="t1ce", align="rigid")
    given = files("t1ce", "flair")
    first = prepare(how, given)
    assert first.left_out["flair"][0] == "alignment to be looked at"
    assert "nothing within fits" in first.left_out["flair"][1]
    (doubt,) = first.doubts
    assert (doubt.modality, doubt.verdict) == ("flair", None)

    accepted = prepare(how, given, {"flair": (doubt.pair, "accept")})
    assert accepted.doubts[0].verdict == "accept"
    scanned = prepare(how, given, {"flair": (doubt.pair, "as_scanned")})
    plain = prepare(pipeline("t1ce", "flair", reference="t1ce"), given)
    assert_array_equal(scanned.images["flair"], plain.images["flair"])
    assert np.abs(accepted.images["flair"] - plain.images["flair"]).max() > 0.1
    rejected = prepare(how, given, {"flair": (doubt.pair, "reject")})
    assert rejected.left_out["flair"][0] == "alignment rejected"

    stale = prepare(how, given, {"flair": ("0" * 16, "accept")})
    assert stale.left_out["flair"][0] == "alignment to be looked at", "said of other files"
    kept = prepare(replace(how, how=how.how.model_copy(update={"doubtful": "as_scanned"})), given)
    assert_array_equal(kept.images["flair"], plain.images["flair"])
    assert kept.doubts


def test_a_good_image_needs_no_verdict(found: dict[str, Any]) -> None:
    how = pipeline("t1ce", "flair", reference="t1ce", align="rigid")
    pair = preparation.pair_of("rigid", scan(0, "t1ce"), scan(0, "flair"))
    made = prepare(how, files("t1ce", "flair"), {"flair": (pair, "reject")})
    assert made.doubts == ()
    assert "flair" in made.images


def test_outside_the_brain_mask_nothing_is_said() -> None:
    how = pipeline("t1ce", "ct", "pet", reference="t1ce", brain_mask=True, centre="brain")
    made = prepare(how, files("t1ce", "ct", "pet"))
    outside = made.images["pet"] == 0
    assert 0.3 < outside.mean() < 0.95
    assert (made.images["t1ce"][0] == made.images["t1ce"].min()).all()
    assert (made.images["ct"][0] == 0.5).all()
    assert steps(made, "t1ce")["brain_mask"]["volume_ml"] == pytest.approx(1650, rel=0.15)
    assert steps(made, "ct")["normalise"]["within"] == "brain"
    middle = np.argwhere(~outside).mean(axis=0)
    assert np.abs(middle - (np.array(outside.shape) - 1) / 2).max() < 1, "centre: brain"


def test_a_brain_mask_that_cannot_be_right_is_left_to_a_human() -> None:
    volume = head(0, "t1ce")
    half = nifti_of(Volume(volume.voxels[:, :, 38:], volume.affine))
    made = prepare(pipeline("t1ce", brain_mask=True), {"t1ce": half})
    assert made.left_out["t1ce"][0] == "brain mask to be looked at"
    (doubt,) = made.doubts
    accepted = prepare(pipeline("t1ce", brain_mask=True), {"t1ce": half},
                       {"t1ce": (doubt.pair, "accept")})  # fmt: skip
    assert "t1ce" in accepted.images


def test_the_digest_is_of_all_that_changes_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pipeline("t1ce", "ct")
    others = [
        pipeline("t1ce", "ct", **{field: value})
        for field, value in {
            "align": "rigid", "brain_mask": True, "reference": "ct", "doubtful": "as_scanned",
            "spacing_mm": 5.0, "shape": [24, 28, 25],
        }.items()
    ]  # fmt: skip
    others.append(pipeline("t1ce"))
    wider = plain.modalities["ct"].model_copy(update={"window": (0, 90)})
    others.append(replace(plain, modalities={**plain.modalities, "ct": wider}))
    assert len({p.digest for p in (plain, *others)}) == len(others) + 1
    elsewhere = plain.modalities["ct"].model_copy(update={"path": "scans/*.nii"})
    moved = replace(plain, modalities={**plain.modalities, "ct": elsewhere})
    assert moved.digest == plain.digest
    inherited = Pipeline.of(task("t1ce", "ct", shape=None, spacing_mm=None), [24, 28, 24], 6.0)
    assert inherited.digest == plain.digest, "wherever the plan has the grid"
    before = plain.digest
    monkeypatch.setitem(preparation.STEPS, "resample", 2)
    assert plain.digest != before


def test_a_grid_is_needed() -> None:
    with pytest.raises(ConfigError, match="no grid to bring images onto"):
        pipeline("t1ce", shape=None)
    with pytest.raises(ConfigError, match="three positive numbers"):
        Pipeline.of(task("t1ce", shape=None), [24, 0, 24])
