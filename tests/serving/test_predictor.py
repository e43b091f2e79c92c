import numpy as np
import pytest
from numpy.testing import assert_allclose

from fedcore.errors import BlobError, DataError
from fedcore.serving.predictor import Predictor

IMAGE = (1, 2, 2, 2)


def softmax(logits: list[list[float]]) -> np.ndarray:
    powers = np.exp(np.array(logits))
    return powers / powers.sum(axis=1, keepdims=True)


def image(*values: float) -> np.ndarray:
    """One subject for each value, whose voxels sum up to it."""
    return np.stack([np.full(IMAGE, value / 8, np.float32) for value in values])


@pytest.fixture
def predictor(model: bytes) -> Predictor:
    return Predictor(model)


def test_the_file_says_what_the_model_is(predictor: Predictor) -> None:
    assert predictor.classes == ("none", "glioma", "other")
    assert predictor.modalities == ("t1", "ct")
    assert predictor.inputs == {"t1": IMAGE, "ct": IMAGE, "present": (2,)}


def test_probabilities_of_a_batch(predictor: Predictor) -> None:
    found = predictor.predict({"ct": image(0, 2), "t1": image(1, -1)})
    assert_allclose(found, softmax([[1, 0, 3], [-1, 2, 3]]), rtol=1e-5)
    assert_allclose(found.sum(axis=1), 1)


def test_a_missing_modality_is_zero_and_marked_absent(predictor: Predictor) -> None:
    assert_allclose(predictor.predict({"t1": image(1)}), softmax([[1, 0, 1]]), rtol=1e-5)
    assert_allclose(predictor.predict({"ct": image(1)}), softmax([[0, 1, 2]]), rtol=1e-5)


def test_other_number_types_are_converted(predictor: Predictor) -> None:
    whole = np.ones((1, *IMAGE), np.int16)
    assert_allclose(predictor.predict({"t1": whole}), softmax([[8, 0, 1]]), rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "no image was given; give at least one of t1, ct"),
        ({"mri": image(1)}, "no input 'mri'; it takes t1, ct"),
        ({"present": np.ones((1, 2))}, "no input 'present'"),
        ({"t1": image(1)[0]}, r"t1 has shape \(1, 2, 2, 2\); \(batch, 1, 2, 2, 2\) is wanted"),
        ({"t1": np.float32(1)}, r"t1 has shape \(\)"),
        ({"t1": image(1)[:0]}, r"t1 has shape \(0, 1, 2, 2, 2\)"),
        ({"t1": image(1), "ct": image(1, 2)}, "differ in their number of subjects: t1 1, ct 2"),
        ({"t1": np.full((1, *IMAGE), "x")}, "t1 has type <U1, not numbers"),
        ({"t1": np.full((1, *IMAGE), np.nan)}, "t1 has values that are not finite"),
        ({"t1": np.full((1, *IMAGE), 1e300)}, "t1 has values that are not finite"),
        ({"t1": np.full((1, *IMAGE), 3e38)}, "answer is not finite"),
    ],
)
def test_what_is_wrong_is_said(
    predictor: Predictor, images: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        predictor.predict(images)


def test_a_model_without_modalities_takes_all_its_inputs(tabular_model: bytes) -> None:
    predictor = Predictor(tabular_model)
    assert predictor.modalities == ()
    found = predictor.predict({"input": np.array([[0.0, 1.0]])})
    assert_allclose(found, softmax([[0, -1]]), rtol=1e-5)


def test_what_is_no_model_is_refused(model_without_metadata: bytes) -> None:
    with pytest.raises(BlobError, match="cannot be loaded"):
        Predictor(b"\x80\x04 a pickle")
    with pytest.raises(BlobError, match="does not say its classes"):
        Predictor(model_without_metadata)


def test_a_model_of_patches_takes_larger_images(model_of_patches: bytes) -> None:
    """Of each voxel alone, so that what windows say must fit together without a seam."""
    predictor = Predictor(model_of_patches)
    images = np.random.default_rng(0).normal(size=(2, 1, 7, 3, 5))
    only = predictor.predict({"t1": images})
    assert_allclose(only[:, 1], 1 / (1 + np.exp(-images[:, 0])), rtol=1e-5)
    both = predictor.predict({"t1": images, "ct": images})
    assert_allclose(both[:, 1], 1 / (1 + np.exp(-2 * images[:, 0])), rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"t1": (1, 1, 3, 3, 1)}, r"\(batch, 1, 3, 2, 2\), or more voxels, is wanted"),
        ({"t1": (1, 2, 3, 3, 3)}, r"t1 has shape \(1, 2, 3, 3, 3\)"),
        ({"t1": (1, 1, 3, 3)}, r"t1 has shape \(1, 1, 3, 3\)"),
        ({"t1": (1, 1, 4, 4, 4), "ct": (1, 1, 4, 4, 5)}, r"in their grid: t1 \(4, 4, 4\), ct \(4"),
    ],
)
def test_what_patches_do_not_fit_into_is_said(
    model_of_patches: bytes, images: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Predictor(model_of_patches).predict({n: np.zeros(shape) for n, shape in images.items()})
