from itertools import product

import pytest
import torch
from torch import nn

from fedcore.models.fusion import (
    AttentionFusion,
    ConcatenationFusion,
    CrossAttentionFusion,
    SumFusion,
)

FEATURES = 8


def attention() -> AttentionFusion:
    module = AttentionFusion(FEATURES)
    nn.init.normal_(module.score.weight)
    return module


def cross_attention() -> CrossAttentionFusion:
    module = CrossAttentionFusion(FEATURES)
    for last in (module.join, module.narrow):
        nn.init.normal_(last.weight)
    return module


@pytest.fixture(params=[SumFusion, ConcatenationFusion, attention, cross_attention])
def fusion(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param()  # type: ignore[no-any-return]


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


@pytest.mark.parametrize("kind", [AttentionFusion, CrossAttentionFusion])
def test_attention_starts_as_the_sum(kind: type[nn.Module]) -> None:
    tokens, present = torch.randn(5, 3, FEATURES), torch.rand(5, 3) > 0.5
    torch.testing.assert_close(kind(FEATURES)(tokens, present), SumFusion()(tokens, present))


def test_concatenation_is_one_linear_map_of_all_features_and_the_mask() -> None:
    torch.manual_seed(0)
    maps = [nn.Linear(5, FEATURES) for _ in range(3)]
    found, present = torch.randn(6, 3, 5), torch.rand(6, 3) > 0.5
    tokens = torch.stack([map_(found[:, m]) for m, map_ in enumerate(maps)], dim=1)
    columns = torch.cat([map_.weight for map_ in maps], dim=1)
    of_mask = torch.stack([map_.bias for map_ in maps], dim=1)
    joined = torch.cat([(found * present.unsqueeze(2)).flatten(1), present.float()], dim=1)
    expected = nn.functional.leaky_relu(joined @ torch.cat([columns, of_mask], dim=1).T, 0.1)
    torch.testing.assert_close(ConcatenationFusion()(tokens, present), expected)


def test_with_cross_attention_one_modality_changes_what_another_means() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 2, FEATURES)
    mixed = (
        torch.stack([first[:, 0], second[:, 1]], dim=1),
        torch.stack([second[:, 0], first[:, 1]], dim=1),
    )
    both = torch.ones(1, 2, dtype=torch.bool)
    for module, additive in ((SumFusion(), True), (cross_attention(), False)):
        straight = module(first, both) + module(second, both)
        crossed = module(mixed[0], both) + module(mixed[1], both)
        assert torch.allclose(straight, crossed, atol=1e-5) is additive


def test_nothing_present_is_zero(fusion: nn.Module) -> None:
    assert not fusion(torch.randn(2, 3, FEATURES), torch.zeros(2, 3, dtype=torch.bool)).any()
