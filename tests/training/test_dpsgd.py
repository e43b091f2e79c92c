"""A step of DP-SGD: whose gradient is clipped to what, what is added, and from which secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small import Multimodal, Subjects, Table, Volumes, linear, made, volumetric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.errors import ConfigError, DataError, PermanentError
from fedcore.models.mend import mended
from fedcore.params import digest
from fedcore.training import dpsgd
from fedcore.training.state import get_params

KEY = bytes(range(32))
SILENT = 1e-12
"""Noise that rounds away."""


def training(**fields: Any) -> Training:
    return Training(device="cpu", optimizer="sgd", learning_rate=1.0, **fields)


def private(**fields: Any) -> SubjectPrivacy:
    known = {"clip_norm": 0.5, "noise_multiplier": SILENT, "sampling_rate": 1.0, "steps": 1}
    return SubjectPrivacy.model_validate({**known, **fields})


def moved(module: nn.Module, dataset: Any, how: SubjectPrivacy, **fields: Any) -> dict[str, Any]:
    """The update of one site."""
    options = {"key": KEY, "seed": 1, **{k: fields.pop(k) for k in ("key", "ghost") if k in fields}}
    result = dpsgd.train(module, dataset, cross_entropy, training(**fields), how, **options)
    before = get_params(module)
    return {name: array - before[name] for name, array in result.params.items()}


def by_hand(module: nn.Module, dataset: Any, clip_norm: float) -> dict[str, np.ndarray]:
    """The mean of clipped gradients, one backward pass a subject."""
    named = {n: p for n, p in module.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in named.items()}
    collate = getattr(dataset, "collate", torch.utils.data.default_collate)
    for index in range(len(dataset)):
        inputs, target = collate([dataset[index]])
        loss = cross_entropy(module(inputs), target)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        norm = torch.stack([g.norm() for g in found if g is not None]).norm()
        for name, gradient in zip(named, found, strict=True):
            if gradient is not None:
                sums[name] += gradient * min(1.0, clip_norm / float(norm))
    return {name: -(total / len(dataset)).numpy() for name, total in sums.items()}


class Convolutions(nn.Module):
    """Two modalities as volumes, as the built-in model takes them, with an in-place activation."""

    modalities = ("mri", "pet")

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({
            name: nn.Sequential(
                nn.Conv3d(1, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4),
                nn.LeakyReLU(0.1, inplace=True),
            )
            for name in self.modalities
        })  # fmt: skip
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens = []
        for column, name in enumerate(self.modalities):
            if name in inputs:
                volume = inputs[name].reshape(-1, 1, 5, 1, 1).expand(-1, 1, 5, 4, 4)
                here = self.encoder[name](volume).mean(dim=(2, 3, 4))
                tokens.append(here * inputs["present"][:, [column]])
        return self.head(torch.stack(tokens).sum(dim=0))  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "linear": (linear, Table(11)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(),
                              nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)),
        Volumes(11),
    ),
    "missing modalities": (Convolutions, Subjects([1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1])),
    "a modality nobody has": (Multimodal, Subjects([0] * 6)),
}  # fmt: skip


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("name", MODELS)
def test_each_subjects_whole_gradient_is_clipped_then_summed(
    name: str, batch_size: int, ghost: bool
) -> None:
    """Also by accumulation, with a modality that a batch, or the whole site, lacks."""
    maker, dataset = MODELS[name]
    module = mended(made(maker))
    update = moved(module, dataset, private(), batch_size=batch_size, ghost=ghost)
    for param, wanted in by_hand(module, dataset, 0.5).items():
        np.testing.assert_allclose(update[param], wanted, rtol=2e-4, atol=2e-7, err_msg=param)


def test_the_clipped_sum_is_opacus_own() -> None:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module, table = made(MODELS["convolutions"][0]), Volumes(12)
    update = moved(module, table, private(clip_norm=0.3, steps=3), batch_size=5)
    theirs = GradSampleModule(made(MODELS["convolutions"][0]))
    sgd = torch.optim.SGD(theirs.parameters(), lr=1.0)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=0.3, expected_batch_size=12)
    before = get_params(module)
    rows, targets = torch.utils.data.default_collate([table[i] for i in range(12)])
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(theirs(rows), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, array in get_params(theirs._module).items():
        np.testing.assert_allclose(update[name], array - before[name], rtol=1e-4, atol=1e-6)


def test_noise_of_the_stated_deviation_is_on_every_trainable_parameter() -> None:
    """That of a modality that nobody here has too: who has what must not show."""
    module = Multimodal()
    module.encoder["pet"] = nn.Linear(5, 4000)
    module.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    table = Subjects([0] * 8)
    how = {"clip_norm": 0.5, "steps": 4, "sampling_rate": 0.25}
    pet = []
    for noise in (2.0, 4.0):
        update = moved(module, table, private(noise_multiplier=noise, **how))
        result = dpsgd.train(
            module, table, cross_entropy, training(), private(noise_multiplier=noise, **how),
            key=KEY, seed=1,
        )  # fmt: skip
        assert result.trained == {"encoder.mri": 8, "encoder.pet": 8, "head": 8}
        assert (update.pop("frozen") == 0).all()
        assert all((array != 0).all() for array in update.values())
        pet.append(np.concatenate([update[f"encoder.pet.{x}"].ravel() for x in ("weight", "bias")]))
    # √steps · z · C / (rate · N), to 1 % (24,000 values: one standard deviation is 0.5 %)
    assert pet[0].std() == pytest.approx(2 * 2.0 * 0.5 / (0.25 * 8), rel=0.02)
    assert abs(pet[0].mean()) < 0.03
    np.testing.assert_allclose(pet[1], 2 * pet[0], rtol=1e-4, atol=1e-6)


def test_a_step_without_any_subject_is_a_step_of_noise() -> None:
    table = Table(8)
    how = private(sampling_rate=1e-6, noise_multiplier=1.0, steps=2)
    update = moved(made(linear), table, how)
    assert np.abs(update["weight"]).min() > 0
    assert update["weight"].std() == pytest.approx(2**0.5 * 0.5 / (1e-6 * 8), rel=0.6)


def test_subjects_are_sampled_one_by_one_at_the_rate() -> None:
    seen: list[int] = []

    class Watched(Table):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            seen.append(index)
            return super().__getitem__(index)

    moved(made(linear), Watched(200), private(sampling_rate=0.3, steps=50))
    # 10,000 draws: one standard deviation of the total is 46, of a subject's count 3.2
    assert abs(len(seen) - 3000) < 4 * 46
    counts = np.bincount(seen, minlength=200)
    assert 0 < counts.min() < counts.max() < 50
    assert counts.std() == pytest.approx(3.24, rel=0.25)


def test_the_same_key_gives_the_same_bytes_and_another_one_others() -> None:
    def params(key: bytes) -> str:
        how = private(noise_multiplier=1.0, sampling_rate=0.5, steps=3)
        module = made(volumetric)
        options = {"key": key, "seed": 4}
        return digest(
            dpsgd.train(module, Volumes(), cross_entropy, training(), how, **options).params  # type: ignore[arg-type]
        )

    assert params(KEY) == params(KEY)
    assert params(KEY) != params(bytes(32))


def test_fedprox_pulls_towards_the_global_params_without_spending_anything() -> None:
    how = private(steps=4, noise_multiplier=1.0)
    free = moved(made(linear), Table(8), how)
    held = moved(made(linear), Table(8), how, proximal_mu=0.5)
    assert np.linalg.norm(held["weight"]) < np.linalg.norm(free["weight"])


def test_nothing_is_told_of_the_loss() -> None:
    result = dpsgd.train(
        made(linear), Table(8), cross_entropy, training(), private(steps=2), key=KEY, seed=0
    )
    assert result.measurements == {"steps": 2.0}


def test_a_buffer_that_follows_the_data_is_refused() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(5), requires_grad=False)
            self.register_buffer("seen", torch.zeros(5))
            self.head = nn.Linear(5, 2)

        def forward(self, rows: Tensor) -> Tensor:
            self.seen += rows.mean(dim=0)  # type: ignore[has-type]
            return self.head(rows)  # type: ignore[no-any-return]

    with pytest.raises(ConfigError, match=r"the buffer 'seen' changes while training"):
        moved(Remembers(), Table(8), private())


def test_what_does_not_keep_the_subjects_apart_is_refused() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.head(rows.mean(dim=0, keepdim=True)).expand(len(rows), 2)  # type: ignore[no-any-return]

    with pytest.raises(ConfigError, match="must be that of the subjects"):
        moved(Mixes(), Table(8), private())


def test_a_gradient_that_is_not_finite_ends_the_training() -> None:
    table = Table(8)
    table.rows[3] = float("inf")
    with pytest.raises(PermanentError, match="the gradient of a subject is not finite"):
        moved(made(linear), table, private())
    with pytest.raises(DataError, match="the dataset is empty"):
        moved(made(linear), Table(0), private())


def test_a_model_with_batch_norm_is_mended_and_trains() -> None:
    def maker() -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip

    module = mended(made(maker))
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in module.modules())
    assert not any(getattr(layer, "inplace", False) for layer in module.modules())
    assert not list(module.buffers())
    update = moved(module, Volumes(), private())
    wanted = by_hand(module, Volumes(), 0.5)
    np.testing.assert_allclose(update["0.weight"], wanted["0.weight"], rtol=1e-4, atol=1e-7)


def test_a_model_that_cannot_be_mended_says_why() -> None:
    class OwnBatchNorm(nn.BatchNorm3d):
        """Opacus replaces torch's own layers alone."""

    for layer in (OwnBatchNorm(4), nn.BatchNorm3d(4, affine=False)):
        with pytest.raises(ConfigError, match="needs the gradient of each subject alone") as caught:
            mended(nn.Sequential(nn.Conv3d(1, 4, 3), layer))
        assert "BatchNorm" in str(caught.value)
