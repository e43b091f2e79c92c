"""Parts of a grid to train on, and whole answers out of parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import outlined
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from fedcore.config.functions import resolve
from fedcore.config.learning import Patches
from fedcore.config.plan import Plan
from fedcore.data.bids import BidsDataset
from fedcore.data.site import SiteData
from fedcore.errors import ConfigError
from fedcore.models.initial import build_model
from fedcore.params import digest
from fedcore.seeds import generator
from fedcore.training import dpsgd, local
from fedcore.training.compute import Compute
from fedcore.training.patches import a_place, probabilities, seen

CPU = Compute(torch.device("cpu"))
PATCHES = {"shape": [8, 8, 6], "per_subject": 2, "foreground": 0.7}


def plan(**patches: Any) -> Plan:
    training = {"batch_size": 4, "learning_rate": 0.02, "patches": {**PATCHES, **patches}}
    return outlined.plan(training=training)


def subjects() -> BidsDataset:
    """Twelve of 12 × 12 × 12 voxels, the first without pet."""
    what = outlined.plan()
    site = SiteData(what.task, outlined.stores()["north"], what.purpose)
    found = outlined.dataset(site)["train"]
    first, *others = found.examples
    alone = replace(first, images={"mri": first.images["mri"]})
    return replace(found, examples=(alone, *others))


def trained(what: Plan, data: Any, *, seed: int = 1, module: nn.Module | None = None) -> Any:
    loss = resolve(what.task.loss)
    return local.train(module or build_model(what), data, loss, what.training, seed=seed)


def watched(what: Plan) -> tuple[nn.Module, set[tuple[int, ...]]]:
    """The plan's model, and the sizes of images that it has seen."""
    module, sizes = build_model(what), set[tuple[int, ...]]()
    module.register_forward_pre_hook(lambda _, given: sizes.add(tuple(given[0]["mri"].shape[2:])))
    return module, sizes


def shares(target: np.ndarray, how: Patches, count: int = 2000) -> list[float]:
    """The share of the patches that have a voxel of the class, class by class after the first."""
    patches = [target[a_place(target, how, generator(3, n))] for n in range(count)]
    assert {patch.shape for patch in patches} == {tuple(how.shape)}
    return [float(np.mean([(patch == k).any() for patch in patches])) for k in (1, 2)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_as_many_patches_as_asked_have_what_is_to_be_found(share: float) -> None:
    target = np.zeros((12, 12, 12), np.uint8)
    target[0, 11, 0] = 1  # a patch that lies anywhere has it once in 9³ times
    found, _ = shares(target, Patches(shape=[4, 4, 4], foreground=share))
    assert abs(found - share) < 0.04


def test_a_small_structure_is_seen_as_often_as_a_large_one() -> None:
    target = np.zeros((20, 20, 20), np.uint8)
    target[:, :10] = 1
    target[18, 18, 18] = 2
    large, small = shares(target, Patches(shape=[4, 4, 4], foreground=1.0))
    assert abs(large - 0.5) < 0.04
    assert abs(small - 0.5) < 0.04


def test_without_a_structure_every_place_is_as_likely() -> None:
    target, how = np.zeros((6, 4, 5), np.uint8), Patches(shape=[4, 4, 4], foreground=1.0)
    begins = [[s.start for s in a_place(target, how, generator(0, n))] for n in range(600)]
    where, times = np.unique(begins, axis=0, return_counts=True)
    assert len(where) == 3 * 1 * 2
    assert times.min() > 60


def test_inputs_and_target_are_cut_alike_and_what_is_absent_stays_so() -> None:
    data, how = subjects(), plan(foreground=1.0).training
    cut = seen(data, how, seed=4)
    for index in (0, 1):
        inputs, target = cut[index]
        example = data.examples[index]
        assert list(inputs) == list(example.images)
        corners = [
            (x, y, z) for x in range(5) for y in range(5) for z in range(7)
            if torch.equal(inputs["mri"][0], example.images["mri"][0, x:x + 8, y:y + 8, z:z + 6])
        ]  # fmt: skip
        ((x, y, z),) = corners
        assert torch.equal(target, example.target[x : x + 8, y : y + 8, z : z + 6])
        for name, image in inputs.items():
            assert torch.equal(image, example.images[name][:, x : x + 8, y : y + 8, z : z + 6])
    assert not torch.equal(cut[1][0]["mri"], cut[1][0]["mri"]), "another one every time"


def test_a_patch_depends_on_no_other_subject() -> None:
    """What DP-SGD rests on: whoever else is there, a subject's gradient is the same."""
    data, how = subjects(), plan().training
    first, _, *others = data.examples
    other = replace(first, target=torch.zeros_like(first.target))
    changed = replace(data, examples=(first, other, *others))
    one, two = seen(data, how, seed=4), seen(changed, how, seed=4)
    for index in (1, 1, 0):
        _ = two[index]
    _ = one[0]
    assert torch.equal(one[0][0]["mri"], two[0][0]["mri"])


def test_a_subject_counts_once_however_many_of_its_patches_are_seen() -> None:
    what, data = plan(), subjects()
    module, sizes = watched(what)
    result = trained(what, data, module=module)
    assert sizes == {(8, 8, 6)}
    assert result.measurements["steps"] == 12 * 2 / 4
    assert result.num_examples == 12
    assert dict(result.trained) == {"decoder": 12, "encoder.mri": 12, "encoder.pet": 11, "head": 12}


def test_the_same_seed_gives_the_same_bits_and_another_gives_others() -> None:
    what, data = plan(), subjects()
    found = [digest(trained(what, data, seed=seed).params) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_the_loss_before_a_round_is_of_a_patch_of_each() -> None:
    what, data = plan(), subjects()
    module, sizes = watched(what)
    loss = resolve(what.task.loss)
    result = local.train(module, data, loss, what.training, seed=1, tell_loss=True)
    assert sizes == {(8, 8, 6)}
    assert 0 < result.measurements["loss_before"] < 3


def test_dp_sgd_takes_one_patch_of_each_subject() -> None:
    subject = {"clip_norm": 0.5, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 2}
    training = {"batch_size": 4, "patches": {**PATCHES, "per_subject": 1}}
    what, data = outlined.plan(training=training, privacy={"subject": subject}), subjects()
    privacy, loss = what.privacy.subject, resolve(what.task.loss)
    assert privacy is not None
    module, sizes = watched(what)
    found = [
        dpsgd.train(module, data, loss, what.training, privacy, key=b"k" * 32, seed=1)
        for _ in range(2)
    ]
    assert sizes == {(8, 8, 6)}
    assert digest(found[0].params) == digest(found[1].params)


def test_whole_answers_are_monais_with_whatever_a_subject_has() -> None:
    what, data = plan(overlap=0.25), subjects()
    module = build_model(what).eval()
    inputs, target = data.collate([data[index] for index in range(3)])
    patches = what.training.patches
    assert patches is not None
    with torch.inference_mode():
        found = probabilities(module, inputs, target.shape[1:], patches, CPU)
        for row in range(3):
            torch.testing.assert_close(found[[row]], monais(module, inputs, row, patches))


def monais(module: Any, inputs: dict[str, Tensor], row: int, how: Patches) -> Any:
    names = [name for name in module.modalities if name in inputs]
    volume = torch.stack([inputs[name][row, 0] for name in names])[None]

    def answer(windows: Tensor) -> Tensor:
        images = {name: windows[:, [channel]] for channel, name in enumerate(names)}
        present = inputs["present"][[row]].expand(len(windows), -1)
        return module({**images, "present": present}).softmax(dim=1)  # type: ignore[no-any-return]

    return sliding_window_inference(
        volume, how.shape, 3, answer, overlap=how.overlap, mode="gaussian"
    )


def test_evaluation_sees_patches_and_counts_whole_volumes() -> None:
    what, data = plan(), subjects()
    module, sizes = watched(what)
    found, true = local.predict(module, data, what.training)
    assert sizes == {(8, 8, 6)}
    assert (true.sum(axis=1) == 12**3).all()
    assert (found[..., 1].sum(axis=1) == 12**3).all()


def test_a_patch_as_large_as_the_grid_is_the_whole() -> None:
    what, data = plan(shape=[12, 12, 12], per_subject=1), subjects()
    whole = what.training.model_copy(update={"patches": None})
    module = build_model(what)
    for one, other in zip(
        local.predict(module, data, what.training), local.predict(module, data, whole), strict=True
    ):
        assert np.array_equal(one, other)
    alike = what.model_copy(update={"training": whole})
    assert digest(trained(what, data).params) == digest(trained(alike, data).params)


@pytest.mark.parametrize("target", [np.array(1), np.zeros((8, 8, 5), np.uint8)])
def test_what_cannot_be_cut_is_said(target: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"patches of \[8, 8, 6\] voxels cannot be cut from"):
        a_place(target, Patches(shape=[8, 8, 6]), generator(0))
