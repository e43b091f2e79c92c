"""What is moved is found again, always at the same place, and what cannot be right is told."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from heads import displacement, error_mm, head, moved
from numpy.testing import assert_array_equal

from fedcore.data import alignment, registration
from fedcore.data.nifti import Volume
from fedcore.errors import ConfigError, DataError

KINDS = {"t1ce": "mr", "flair": "mr", "ct": "ct", "pet": "pet"}


def pyramid(person: int, modality: str, by: np.ndarray | None = None) -> registration.Pyramid:
    volume = head(person, modality)
    return registration.pyramid(volume if by is None else moved(volume, by), KINDS[modality])


@functools.cache
def aligned(modality: str) -> tuple[np.ndarray, dict[str, float]]:
    return alignment.align(pyramid(0, "t1ce"), pyramid(0, modality, displacement()), "rigid")


@pytest.mark.parametrize(("modality", "goal_mm"), [("t1ce", 1.0), ("flair", 2.0), ("ct", 2.0)])
def test_a_moved_head_is_found(modality, goal_mm):
    truth = displacement()
    assert error_mm(np.eye(4), truth) > 10
    found, measured = aligned(modality)
    assert error_mm(found, truth) < goal_mm
    assert alignment.concerns(measured) == []
    assert measured["after"] > measured["before"]
    assert measured["shift_mm"] == pytest.approx(error_mm(np.eye(4), truth), abs=3)
    assert measured["turn_degrees"] == pytest.approx(10, abs=1)


def test_a_stretched_head_is_found_by_affine_alone():
    truth = displacement(5, 4) @ np.diag([1.04, 1.0, 0.97, 1.0])
    fixed, moving = pyramid(0, "t1ce"), pyramid(0, "flair", truth)
    rigid = registration.rigid(fixed, moving)
    affine = registration.affine(fixed, moving, rigid)
    measured = alignment.measures(fixed, moving, affine)
    assert error_mm(affine, truth) < 1 < error_mm(rigid, truth)
    assert measured["stretch"] == pytest.approx(0.04, abs=0.015)
    assert alignment.concerns(measured) == []


def test_another_patients_head_is_told():
    _, measured = alignment.align(pyramid(0, "t1ce"), pyramid(1, "flair"), "rigid")
    assert any("nothing within fits" in why for why in alignment.concerns(measured))


def test_what_is_implausible_is_told():
    good = {"before": 0.2, "after": 0.4, "peak": 1.9, "overlap": 0.9, "shift_mm": 4.0,
            "turn_degrees": 3.0, "stretch": 0.0}  # fmt: skip
    for measure, value, words in (
        ("after", 0.1, "fits less well than before"),
        ("shift_mm", 50.0, "moved by 50 mm"),
        ("turn_degrees", 31.0, "turned by 31°"),
        ("stretch", 0.2, "stretched by 20%"),
        ("overlap", 0.4, "overlap by 0.40"),
        ("peak", 1.2, "nothing within fits"),
    ):
        (why,) = alignment.concerns(good | {measure: value})
        assert words in why


def test_the_same_voxels_give_the_same_bits_in_every_process():
    """Also where ITK may use as many threads as it likes."""
    script = (
        "import sys; sys.path.insert(0, 'tests/support')\n"
        "from heads import *\nfrom fedcore.data import registration as r\n"
        "f, m = (r.pyramid(v, 'mr') for v in (head(0, 't1ce'), moved(head(0, 'flair'), "
        "displacement())))\n"
        "print(r.rigid(f, m).tobytes().hex())"
    )
    here, _ = aligned("flair")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "4",
             "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "4"},
    )  # fmt: skip
    assert done.stdout.strip() == here.tobytes().hex()


def test_an_image_elsewhere_starts_from_the_middle_of_the_head():
    """A position that was lost: the files' millimetres have nothing in common."""
    far = np.eye(4)
    far[:3, 3] = 500, -300, 200
    volume = head(0, "flair")
    moving = registration.pyramid(Volume(volume.voxels, far @ volume.affine), "mr")
    found, measured = alignment.align(pyramid(0, "t1ce"), moving, "rigid")
    assert error_mm(found, far) < 2
    assert [why for why in alignment.concerns(measured) if "moved by" in why]


def test_nothing_to_align_by_is_a_data_error():
    flat = head(0, "t1ce").voxels * 0
    flat[0, 0, 0] = 1
    moving = registration.pyramid(Volume(flat, head(0, "t1ce").affine), "mr")
    with pytest.raises(DataError) as raised:
        registration.rigid(pyramid(0, "t1ce"), moving)
    assert raised.value.reason == "alignment failed"


def test_without_simpleitk_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ConfigError, match=r"fedcore\[site\]"):
        registration.rigid(pyramid(0, "t1ce"), pyramid(0, "flair"))


def test_mutual_information_is_entropy_of_an_image_with_itself():
    values = np.repeat(np.arange(8.0), 50)
    assert registration.mutual_information(values, values) == pytest.approx(np.log(8))
    other = np.random.default_rng(0).permutation(values)
    assert registration.mutual_information(values, other) < 0.1
    assert registration.mutual_information(values[:0], other[:0]) == 0
    assert_array_equal(registration.translation((1, 2, 3))[:3, 3], (1, 2, 3))
