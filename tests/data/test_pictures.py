from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedcore.data.pictures import panel

BALL = np.linalg.norm(np.indices((30, 34, 30)) - np.array([15, 17, 15])[:, None, None, None],
                      axis=0) < 9  # fmt: skip


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def coloured(found: np.ndarray) -> float:
    return float((np.ptp(found, axis=-1) > 60).mean())


def test_a_column_a_modality_and_one_an_overlay() -> None:
    image = BALL.astype(np.float32)
    widths = [pixels(panel(dict.fromkeys(names, image))).shape[1] for names in ("a", "ab", "abc")]
    assert widths[1] - widths[0] == 2 * (widths[2] - widths[1]) / 2 == widths[2] - widths[1]


def test_what_agrees_is_grey_and_what_does_not_is_coloured() -> None:
    image = BALL.astype(np.float32)
    assert coloured(pixels(panel({"a": image, "b": 5 * image}))) == 0
    assert coloured(pixels(panel({"a": image, "b": np.roll(image, 5, 0)}))) > 0.005


def test_a_mask_is_outlined_and_not_filled() -> None:
    found = pixels(panel({"a": BALL.astype(np.float32)}, masks={"a": BALL}))
    drawn = (found == (0, 229, 255)).all(axis=-1)
    assert 0 < drawn.mean() < 0.02


def test_images_of_two_grids_are_laid_on_each_other() -> None:
    one = BALL.astype(np.float32)
    shifted = np.roll(one, 5, axis=0)
    moved = np.eye(4)
    moved[0, 3] = -5
    png = panel({"a": one, "b": shifted}, {"a": np.eye(4), "b": moved})
    assert coloured(pixels(png)) < 0.001


def test_an_image_of_its_own_grid_has_a_column_and_no_overlay() -> None:
    image, photo = BALL.astype(np.float32), np.zeros((40, 40, 3), np.float32)
    photo[5:20, 5:35, 0] = 1
    one, two, apart = (
        pixels(panel(dict.fromkeys(names, image), alone=alone))
        for names, alone in (("a", None), ("ab", None), ("a", {"eye": {"photo": photo}}))
    )
    column = (two.shape[1] - one.shape[1]) // 2
    assert apart.shape[1] == one.shape[1] + column
    red = (apart[..., 0] > 200) & (apart[..., 1:].max(axis=-1) < 60)
    assert 0.03 < red[:, -column:].mean() < 0.3
    assert not red[:, :-column].any()
    alone = pixels(panel({}, alone={"eye": {"photo": photo}}))
    assert alone.shape[1] == one.shape[1]


def test_notes_and_title_take_room() -> None:
    image = BALL.astype(np.float32)
    plain, told = (pixels(panel({"a": image}, notes={"a": lines})) for lines in ([], ["x", "y"]))
    assert told.shape[0] > plain.shape[0]
    assert pixels(panel({"a": image}, title="sub-1")).shape[0] > plain.shape[0]


def test_a_flat_or_broken_image_is_drawn_too() -> None:
    broken = np.full((8, 8, 8), np.nan, np.float32)
    assert panel({"a": np.zeros((8, 8, 8)), "b": broken})
    with pytest.raises(ValueError, match="needs an image"):
        panel({})
