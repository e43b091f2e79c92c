import torch

from fedcore.models.heads import ClassificationHead


def test_one_logit_per_class_and_dropout_only_in_training() -> None:
    head, fused = ClassificationHead(8, 3, dropout=0.5), torch.randn(2, 8)
    assert head(fused).shape == (2, 3)
    assert not torch.equal(head(fused), head(fused))
    head.eval()
    assert torch.equal(head(fused), head(fused))
