"""What varying an image changes, and what it leaves as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedcore.config.learning import Augmentation
from fedcore.errors import ConfigError
from fedcore.training.augment import varied

KINDS: Any = {"flair": "mr", "ct": "ct", "pet": "pet", "photo": "fundus"}
NONE = {"gamma": 0.0, "shading": 0.0, "scale": 0.0, "noise": 0.0, "blur": 0.0}


def only(**fields: float) -> Augmentation:
    return Augmentation.model_validate(NONE | fields)


def volumes(size: int = 3) -> Tensor:
    """Of a bright patient in dark air (B, 1, X, Y, Z), which begins at the third slice."""
    images = 1.0 + torch.rand(size, 1, 10, 9, 8, generator=torch.Generator().manual_seed(1))
    images[:, :, :2] = 0.0
    return images


def seen(how: Augmentation, inputs: Any, seed: int = 5) -> Any:
    torch.manual_seed(seed)
    return varied(how, KINDS, inputs)


def test_mr_contrast_changes_and_order_mean_and_deviation_do_not() -> None:
    before = volumes()
    after = seen(only(gamma=0.5), {"flair": before})["flair"]
    assert (after - before).abs().amax(dim=(1, 2, 3, 4)).min() > 0.01
    for one, other in zip(before.flatten(1), after.flatten(1), strict=True):
        assert other[one.argsort()].diff().min() > -1e-5
    for of in (torch.mean, torch.std):
        space = {"dim": (1, 2, 3, 4)}
        torch.testing.assert_close(of(after, **space), of(before, **space))


def test_shading_is_smooth() -> None:
    even = torch.ones(1, 1, 16, 16, 16)
    even[:, :, 0] = 0.0
    shaded = seen(only(shading=0.5), {"flair": even})["flair"][0, 0, 1:]
    assert shaded.std() > 0.02
    assert shaded.diff(dim=0).abs().max() < 0.3 * (shaded.max() - shaded.min())


def test_ct_keeps_its_units_and_pet_is_multiplied() -> None:
    before = volumes()
    after = seen(only(gamma=0.5, shading=0.5, scale=0.3), {"ct": before, "pet": before})
    assert torch.equal(after["ct"], before)
    factors = (after["pet"] / before)[:, 0, 2:].flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert factors[:, 0].std() > 0.01


def test_noise_is_the_patient_s_and_air_stays() -> None:
    before = volumes()
    photo = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)) + 0.1
    photo[:, :, :4] = 0.0  # outside the field of view
    after = seen(only(noise=0.5), {"flair": before, "photo": photo})
    torch.testing.assert_close(after["flair"][:, :, :2], before[:, :, :2], atol=1e-6, rtol=0)
    assert ((after["flair"] - before).abs() > 1e-6)[:, :, 2:].float().mean() > 0.99
    assert torch.equal(after["photo"][:, :, :4], photo[:, :, :4])
    assert (after["photo"] != photo)[:, :, 4:].all()


def test_blur_brings_neighbours_nearer() -> None:
    before = volumes()
    after = seen(only(blur=1.0), {"ct": before})["ct"]
    inside = slice(3, None)
    assert (after[:, :, inside].std() < before[:, :, inside].std()).all()


def test_who_lacks_a_modality_has_none_afterwards_either() -> None:
    absent, present = torch.zeros(2, 1, 6, 6, 6), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = {"flair": absent, "ct": absent, "pet": absent, "present": present}
    after = seen(Augmentation(), inputs)
    assert all(torch.equal(after[name], inputs[name]) for name in inputs)


def test_no_subject_touches_another() -> None:
    """With DP-SGD, what becomes of one subject may not tell of the others."""
    before = volumes()
    other = before.clone()
    other[1:] = torch.rand(other[1:].shape)
    for name in KINDS.keys() - {"photo"}:
        one, two = (seen(Augmentation(), {name: images})[name][0] for images in (before, other))
        assert torch.equal(one, two)
        assert not torch.equal(one, before[0])


def test_what_is_given_stays_and_the_seed_decides() -> None:
    before = volumes()
    kept = before.clone()
    one, two = (seen(Augmentation(), {"flair": before})["flair"] for _ in range(2))
    other = seen(Augmentation(), {"flair": before}, seed=6)["flair"]
    assert torch.equal(before, kept)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_images_without_a_name_and_nothing_to_vary_are_refused() -> None:
    with pytest.raises(ConfigError, match="images without a name"):
        seen(Augmentation(), volumes())
    with pytest.raises(ValueError, match="remove augment"):
        only()
