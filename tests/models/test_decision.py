from itertools import product

import pytest
import torch
from torch import nn

from fedcore.models.decision import MeanOfDecisions, Stacked, WeightsOfDecisions
from fedcore.models.fusion import SumFusion

CLASSES = 3
PATTERNS = torch.tensor(list(product([False, True], repeat=3)))


@pytest.fixture(params=[MeanOfDecisions, WeightsOfDecisions])
def fusion(request: pytest.FixtureRequest) -> nn.Module:
    return request.param()  # type: ignore[no-any-return]


def tokens_for(fusion: nn.Module, size: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return 3 * torch.randn(size, 3, CLASSES + isinstance(fusion, WeightsOfDecisions))


def test_what_stands_in_an_absent_token_never_matters(fusion: nn.Module) -> None:
    tokens = tokens_for(fusion)
    rubbish = tokens.clone()
    rubbish[~PATTERNS] = float("nan")
    rubbish.requires_grad_()
    logits = fusion(rubbish, PATTERNS)
    assert torch.equal(logits, fusion(tokens, PATTERNS))
    logits.square().sum().backward()
    assert rubbish.grad is not None
    assert not rubbish.grad[~PATTERNS].any()


def test_the_order_of_the_modalities_does_not_matter(fusion: nn.Module) -> None:
    tokens, order = tokens_for(fusion), [2, 0, 1]
    torch.testing.assert_close(
        fusion(tokens[:, order], PATTERNS[:, order]), fusion(tokens, PATTERNS)
    )


def test_a_lone_modality_decides_alone_and_none_says_nothing(fusion: nn.Module) -> None:
    tokens = tokens_for(fusion)
    probabilities = fusion(tokens, PATTERNS).softmax(dim=1)
    torch.testing.assert_close(probabilities[0], torch.full((CLASSES,), 1 / CLASSES))
    alone = tokens[1, 2, :CLASSES].softmax(dim=0)  # of 001
    torch.testing.assert_close(probabilities[1], alone)


def test_the_mean_is_of_probabilities() -> None:
    tokens = tokens_for(MeanOfDecisions())
    expected = tokens[-1].softmax(dim=1).mean(dim=0)
    found = MeanOfDecisions()(tokens, PATTERNS)[-1].softmax(dim=0)
    torch.testing.assert_close(found, expected)


def test_weights_are_those_that_the_models_state_and_equal_ones_give_the_mean() -> None:
    tokens = tokens_for(WeightsOfDecisions())
    tokens[..., -1] = torch.tensor([1.0, 9.0, 3.0]).log()
    present = torch.tensor([[True, False, True]]).expand(len(tokens), 3)
    opinions = tokens[..., :-1].softmax(dim=2)
    expected = 0.25 * opinions[:, 0] + 0.75 * opinions[:, 2]
    found = WeightsOfDecisions()(tokens, present).softmax(dim=1)
    torch.testing.assert_close(found, expected)
    tokens[..., -1] = 1.7
    torch.testing.assert_close(
        WeightsOfDecisions()(tokens, PATTERNS)[1:],
        MeanOfDecisions()(tokens[..., :-1], PATTERNS)[1:],
    )


def test_stacking_starts_as_the_product_of_opinions_and_is_linear_in_them() -> None:
    torch.manual_seed(0)
    models = [Stacked(nn.Linear(4, CLASSES), CLASSES) for _ in range(2)]
    images = torch.randn(2, 5, 4)
    both = torch.ones(5, 2, dtype=torch.bool)

    def logits() -> torch.Tensor:
        tokens = [model(image) for model, image in zip(models, images, strict=True)]
        return SumFusion()(torch.stack(tokens, dim=1), both)

    opinions = [m.model(image).softmax(dim=1) for m, image in zip(models, images, strict=True)]
    product_ = opinions[0] * opinions[1]
    torch.testing.assert_close(
        logits().softmax(dim=1), product_ / product_.sum(dim=1, keepdim=True)
    )
    for model in models:
        nn.init.normal_(model.stack.weight)
        nn.init.normal_(model.stack.bias)
    blocks = torch.cat([model.stack.weight for model in models], dim=1)
    together = torch.cat([opinion.log() for opinion in opinions], dim=1)
    expected = together @ blocks.T + models[0].stack.bias + models[1].stack.bias
    torch.testing.assert_close(logits(), expected)
