import torch

from fedcore.models.heads import ClassificationHead


def head(dropout: float) -> ClassificationHead:
    torch.manual_seed(0)
    return ClassificationHead(8, 4, 3, dropout=dropout)


def test_one_logit_per_class_and_dropout_only_in_training() -> None:
    module, fused = head(0.5), torch.randn(2, 8, 6, 6, 6)
    assert module(fused).shape == (2, 3)
    assert not torch.equal(module(fused), module(fused))
    module.eval()
    assert torch.equal(module(fused), module(fused))


def test_place_is_seen_despite_pooling() -> None:
    # Two blobs far from every border: without coordinates, pooling could not tell them apart.
    here, there = torch.zeros(2, 1, 8, 24, 24, 24)
    here[..., 6:8, 6:8, 6:8] = 5.0
    there[..., 14:16, 14:16, 14:16] = 5.0
    module = head(0.0)
    assert (module(here) - module(there)).abs().max() > 1e-3
