"""Classes and groups count as the plan says, and logits are adjusted as in the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedcore.config.learning import Training
from fedcore.errors import ConfigError
from fedcore.training import local
from fedcore.training.emphasis import Emphasis, classes_of, emphasis, groups_of
from fedcore.training.state import get_params

SEX = {"attribute": "sex", "method": "reweigh"}


def training(**fields: object) -> Training:
    known = {"device": "cpu", "optimizer": "sgd", "learning_rate": 0.5, "batch_size": 64}
    return Training.model_validate({**known, **fields})


def table(counts: tuple[int, ...], seed: int = 0) -> TensorDataset:
    """So many examples of each class, apart by a shift along the first axis."""
    classes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(classes), 2, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(noise + classes.unsqueeze(1) * torch.tensor([1.5, 0.0]), classes)


def linear(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, classes)


def recalls(params: dict[str, np.ndarray], data: TensorDataset) -> np.ndarray:
    x, y = (tensor.numpy() for tensor in data.tensors)
    found = (x @ params["weight"].T + params["bias"]).argmax(axis=1)
    return np.array([(found[y == c] == c).mean() for c in np.unique(y)])


def test_adjusted_logits_are_a_softmax_weighed_by_the_counts() -> None:
    """Σ_c n_c e^{f_c} in the denominator (Ren et al. 2020, eq. 3), for any counts."""
    classes = torch.tensor([0] * 6 + [1] * 3 + [2])
    how = emphasis(training(imbalance="logit_adjustment"), classes, None, {})
    logits, index = torch.randn(10, 3), torch.arange(10)
    found = how.loss(cross_entropy, logits, classes, index)
    weighed = torch.tensor([6.0, 3.0, 1.0]) * logits.exp()
    wanted = -(weighed[index, classes] / weighed.sum(dim=1)).log().mean()
    torch.testing.assert_close(found, wanted)


def test_a_class_that_a_site_lacks_is_not_pushed_down() -> None:
    for imbalance, moved in (("none", True), ("logit_adjustment", False)):
        module = linear(3)
        how = training(imbalance=imbalance, epochs=5)
        after = local.train(module, table((20, 10)), cross_entropy, how, seed=1).params
        drift = np.abs(after["bias"] - get_params(module)["bias"])[2]
        assert (drift > 1e-3) == moved


@pytest.mark.parametrize("imbalance", ["class_weights", "logit_adjustment"])
def test_the_rare_class_is_found(imbalance: str) -> None:
    found = {}
    for how in ("none", imbalance):
        fields = training(imbalance=how, epochs=200)
        params = local.train(linear(2), table((90, 10)), cross_entropy, fields, seed=1).params
        found[how] = recalls(dict(params), table((500, 500), seed=9))
    assert found["none"][1] < 0.5
    assert found[imbalance][1] > found["none"][1] + 0.25
    assert found[imbalance].mean() > found["none"].mean() + 0.05


def test_weights_are_the_mean_over_the_cells() -> None:
    """By class, by group, and of both the product; of mean 1 over the subjects."""
    data, groups = table((6, 2)), ["F", "F", "F", "M", "M", "M", "F", "M"]
    data.groups = {"sex": groups}  # type: ignore[attr-defined]
    losses = torch.rand(8)

    def mean(how: Training) -> Tensor:
        found = emphasis(how, classes_of(data, how), groups_of(data, how), {})
        assert found.weights is not None
        torch.testing.assert_close(found.weights.mean(), torch.tensor(1.0))
        return (found.weights * losses).mean()

    by_class = (losses[:6].mean() + losses[6:].mean()) / 2
    torch.testing.assert_close(mean(training(imbalance="class_weights")), by_class)
    woman = torch.tensor([group == "F" for group in groups])
    by_group = (losses[woman].mean() + losses[~woman].mean()) / 2
    torch.testing.assert_close(mean(training(fairness=SEX)), by_group)
    mean(training(fairness=SEX, imbalance="class_weights"))


def test_a_batch_is_weighed_by_the_numbers_of_its_subjects() -> None:
    weights = torch.tensor([1.0, 2.0, 0.0])
    logits, target = torch.randn(2, 2), torch.tensor([0, 1])
    found = Emphasis(weights=weights).loss(cross_entropy, logits, target, torch.tensor([2, 1]))
    torch.testing.assert_close(found, cross_entropy(logits[1:], target[1:]))


def test_numbering_the_examples_changes_no_bit_of_training_without_it() -> None:
    """Weights that are all 1 are as none, but for rounding; the order of examples is the same."""
    data = table((8, 8))
    data.groups = {"sex": ["F", "M"] * 8}  # type: ignore[attr-defined]
    small = {"batch_size": 4, "epochs": 2}
    plain = local.train(linear(2), data, cross_entropy, training(**small), seed=3).params
    even = local.train(linear(2), data, cross_entropy, training(fairness=SEX, **small), seed=3)
    for name, array in plain.items():
        np.testing.assert_allclose(even.params[name], array, rtol=1e-5, atol=1e-6)


def test_what_a_dataset_does_not_tell() -> None:
    with pytest.raises(ConfigError, match=r"does not tell 'sex' of each example"):
        local.train(linear(2), table((4, 4)), cross_entropy, training(fairness=SEX), seed=1)
    masks = TensorDataset(torch.zeros(2, 2), torch.zeros(2, 3, 3))
    with pytest.raises(ConfigError, match="targets are none"):
        classes_of(masks, training(imbalance="class_weights"))
    with pytest.raises(ConfigError, match="remove imbalance"):
        Emphasis(prior=torch.zeros(3)).adjusted(torch.zeros(2, 2))


@pytest.mark.parametrize(
    "fields",
    [
        {"attribute": "sex", "method": "dro"},
        {"attribute": "sex", "method": "dro", "groups": ["F", "F"]},
        {"attribute": "sex", "method": "reweigh", "groups": ["F", "M"]},
        {"attribute": "sex", "method": "reweigh", "step": 0.5},
    ],
)
def test_fields_that_do_not_belong_together(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs groups|no effect"):
        training(fairness=fields)
