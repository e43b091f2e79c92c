from itertools import product

import pytest
import torch
from torch import nn

from fedcore.models.fusion import AttentionFusion, SumFusion

FEATURES = 8


def attention() -> AttentionFusion:
    module = AttentionFusion(FEATURES)
    nn.init.normal_(module.score.weight)
    return module


@pytest.fixture(params=["attention", "sum"])
def fusion(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return SumFusion() if request.param == "sum" else attention()


def test_absent_tokens_never_matter(fusion: nn.Module) -> None:
    present = torch.tensor(list(product([False, True], repeat=3)))
    tokens = torch.randn(8, 3, FEATURES)
    rubbish = tokens.clone()
    rubbish[~present] = float("nan")
    fused = fusion(tokens, present)
    assert torch.equal(fused, fusion(rubbish, present))
    assert fused.shape == (8, FEATURES)
    assert torch.isfinite(fused).all()


def test_present_tokens_matter(fusion: nn.Module) -> None:
    present = torch.tensor([[True, False, True]])
    tokens = torch.randn(1, 3, FEATURES)
    for column, matters in enumerate([True, False, True]):
        changed = tokens.clone()
        changed[:, column] += 1.0
        assert torch.equal(fusion(tokens, present), fusion(changed, present)) is not matters


def test_order_of_modalities_does_not_matter(fusion: nn.Module) -> None:
    tokens, present, order = torch.randn(4, 3, FEATURES), torch.rand(4, 3) > 0.5, [2, 0, 1]
    torch.testing.assert_close(fusion(tokens, present), fusion(tokens[:, order], present[:, order]))


def test_sum_adds_what_is_present() -> None:
    tokens = torch.randn(1, 3, FEATURES)
    fused = SumFusion()(tokens, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(fused, tokens[:, 0] + tokens[:, 2])


def test_attention_starts_as_the_sum() -> None:
    tokens, present = torch.randn(5, 3, FEATURES), torch.rand(5, 3) > 0.5
    torch.testing.assert_close(
        AttentionFusion(FEATURES)(tokens, present), SumFusion()(tokens, present)
    )


def test_nothing_present_is_zero(fusion: nn.Module) -> None:
    assert not fusion(torch.randn(2, 3, FEATURES), torch.zeros(2, 3, dtype=torch.bool)).any()
