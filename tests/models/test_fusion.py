from itertools import product

import pytest
import torch
from torch import nn

from fedcore.models.fusion import AttentionFusion, ConcatenationFusion

SHAPE = (8, 2, 3, 2)


@pytest.fixture(params=["attention", "concatenation"])
def fusion(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "concatenation":
        return ConcatenationFusion(8, modalities=3)
    module = AttentionFusion(8)
    nn.init.normal_(module.score.weight)
    return module


def test_absent_maps_never_matter(fusion: nn.Module) -> None:
    present = torch.tensor(list(product([False, True], repeat=3)))
    maps = torch.randn(8, 3, *SHAPE)
    rubbish = maps.clone()
    rubbish[~present] = float("nan")
    fused = fusion(maps, present)
    assert torch.equal(fused, fusion(rubbish, present))
    assert fused.shape == (8, fusion.features, *SHAPE[1:])
    assert torch.isfinite(fused).all()


def test_present_maps_matter_at_their_place_only(fusion: nn.Module) -> None:
    present = torch.tensor([[True, False, True]])
    maps = torch.randn(1, 3, *SHAPE)
    for column, matters in enumerate([True, False, True]):
        changed = maps.clone()
        changed[:, column, :, 0] += 1.0
        difference = (fusion(maps, present) - fusion(changed, present)).abs().amax(dim=(0, 1, 3, 4))
        assert bool(difference[0] > 0) is matters
        assert difference[1] == 0


def test_attention_starts_as_mean_and_variance_over_the_present() -> None:
    maps = torch.randn(1, 3, *SHAPE)
    fused = AttentionFusion(8)(maps, torch.tensor([[True, False, True]]))
    two = maps[:, [0, 2]]
    expected = torch.cat([two.mean(dim=1), two.var(dim=1, unbiased=False)], dim=1)
    torch.testing.assert_close(fused, expected)


def test_attention_does_not_depend_on_the_order_of_modalities() -> None:
    fusion = AttentionFusion(8)
    nn.init.normal_(fusion.score.weight)
    maps, present, order = torch.randn(4, 3, *SHAPE), torch.rand(4, 3) > 0.5, [2, 0, 1]
    torch.testing.assert_close(fusion(maps, present), fusion(maps[:, order], present[:, order]))


def test_attention_to_nothing_is_zero() -> None:
    fused = AttentionFusion(8)(torch.randn(2, 3, *SHAPE), torch.zeros(2, 3, dtype=torch.bool))
    assert not fused.any()
