from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedcore.report.subjects import centre, planes, subjects, window

SHAPE = (5, 7, 9)


def marked(x: int, y: int, z: int) -> np.ndarray:
    volume = np.zeros(SHAPE)
    volume[x, y, z] = 1
    return volume


def place(pixels: np.ndarray) -> tuple[int, int]:
    return tuple(int(i) for i in np.argwhere(pixels)[0])


def test_patients_right_is_on_the_left_and_front_and_top_are_up():
    right, front, top = 4, 6, 8
    shown = planes(marked(right, front, top), (right, front, top))
    assert place(shown["axial"]) == (0, 0)
    assert place(shown["coronal"]) == (0, 0)
    assert place(shown["sagittal"]) == (0, 0)
    left_back = planes(marked(0, 0, 0), (0, 0, 0))
    assert place(left_back["axial"]) == (SHAPE[1] - 1, SHAPE[0] - 1)
    assert place(left_back["coronal"]) == (SHAPE[2] - 1, SHAPE[0] - 1)
    assert place(left_back["sagittal"]) == (SHAPE[2] - 1, SHAPE[1] - 1)


def test_planes_have_the_shape_of_the_body():
    shapes = {plane: pixels.shape for plane, pixels in planes(np.zeros(SHAPE), (0, 0, 0)).items()}
    assert shapes == {"axial": (7, 5), "coronal": (9, 5), "sagittal": (9, 7)}


def test_a_slice_is_shown_as_axial():
    shown = planes(marked(4, 6, 0)[:, :, 0], (0, 0, 0))
    assert list(shown) == ["axial"]
    assert place(shown["axial"]) == (0, 0)


def test_centre_is_where_most_of_the_lesion_shows():
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 2, 3] = mask[2, 1:4, 3] = True
    assert centre(mask) == (2, 2, 3)
    assert centre(np.zeros(SHAPE, bool)) == (2, 3, 4)
    assert centre(np.zeros((4, 6), bool)) == (2, 3, 0)


def test_each_modality_has_its_own_window():
    image = np.linspace(-1000, 1000, 1001).reshape(7, 11, 13)
    assert window(image, "ct", [-50, 150])[:3] == (0, 80, "gray")
    assert window(image, "ct", [-1000, 300])[:3] == (-1000, 300, "gray")
    assert window(image, "pet", [0, 12])[:3] == (0, 12, "hot")
    low, high, colours, _ = window(image, "mr", None)
    assert (-1000 < low < -900, 900 < high < 1000, colours) == (True, True, "gray")


@pytest.mark.parametrize("shape", [(12, 14, 12), (12, 14)])
def test_mask_is_outlined_only_where_it_fits(shape):
    images = {"ct": np.zeros(shape), "pet": np.zeros(shape)}
    mask = np.zeros(shape)
    mask[3:6, 3:6] = 1
    modalities = {"ct": {"kind": "ct"}, "pet": {"kind": "pet", "window": [0, 12]}}
    with_mask, without, other_grid = subjects(
        [{"title": "t", "images": images, "mask": m} for m in (mask, None, mask[1:])], modalities
    )
    assert with_mask.panels[0].source != without.panels[0].source
    assert other_grid.panels[0].source == without.panels[0].source
    assert (with_mask.outlined, without.outlined) == (True, False)


def test_voxels_that_are_no_numbers_are_shown_as_nothing():
    image = np.full((6, 6, 6), np.nan)
    (one,) = subjects([{"title": "t", "images": {"t1": image}, "mask": None}], {})
    assert one.panels[0].display == "relative intensity"


def test_a_b_scan_is_called_one_and_lies_as_it_is_read():
    scan = np.zeros((60, 20))  # to the right, to the vitreous
    scan[50:, 15:] = 1
    (one,) = subjects([{"title": "amd", "images": {"oct": scan}}], {"oct": {"kind": "oct"}})
    (panel,) = one.panels
    assert panel.alt == "amd: oct, B-scan, relative intensity"
    drawn = pixels(panel.source)
    assert drawn.shape[1] / drawn.shape[0] == pytest.approx(3, abs=0.05)
    bright = np.argwhere(drawn[..., 0] > 200).mean(axis=0) / drawn.shape[:2]
    assert (bright < 0.3).all(), "the patient's right on the left, the vitreous on top"


def pixels(source):
    return np.asarray(Image.open(BytesIO(b64decode(source.partition(",")[2]))).convert("RGB"))


def test_a_photo_of_the_eye_is_shown_in_its_colours():
    photo = np.zeros((20, 20, 3), np.uint8)
    photo[5:15, 5:15] = (200, 100, 40)
    (one,) = subjects(
        [{"title": "dr", "images": {"fundus": photo}}], {"fundus": {"kind": "fundus"}}
    )
    (panel,) = one.panels
    assert np.abs(pixels(panel.source).astype(int) - photo).max() < 4
