from itertools import product

import pytest
import torch
from torch import nn

from fedcore.models.fusion import AttentionFusion, ConcatenationFusion

FUSIONS = [AttentionFusion(8, heads=2), ConcatenationFusion(8, modalities=3)]


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: type(fusion).__name__)
def test_absent_tokens_never_matter(fusion: nn.Module) -> None:
    present = torch.tensor(list(product([False, True], repeat=3)))
    tokens = torch.randn(8, 3, 8)
    other = torch.where(present.unsqueeze(2), tokens, 1e6 * torch.randn(8, 3, 8))
    fused = fusion(tokens, present)
    assert torch.equal(fused, fusion(other, present))
    assert torch.isfinite(fused).all()


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: type(fusion).__name__)
def test_present_tokens_matter(fusion: nn.Module) -> None:
    present = torch.tensor([[True, False, True]])
    tokens = torch.randn(1, 3, 8)
    for column, matters in enumerate([True, False, True]):
        changed = tokens.clone()
        changed[:, column] = torch.randn(8)
        assert torch.equal(fusion(tokens, present), fusion(changed, present)) is not matters


def test_attention_does_not_depend_on_the_order_of_modalities() -> None:
    fusion = AttentionFusion(8, heads=2)
    tokens, present = torch.randn(4, 3, 8), torch.rand(4, 3) > 0.5
    order = [2, 0, 1]
    torch.testing.assert_close(fusion(tokens, present), fusion(tokens[:, order], present[:, order]))
