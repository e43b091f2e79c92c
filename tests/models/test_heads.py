import torch

from fedcore.models.heads import ClassificationHead


def test_one_logit_per_class_and_dropout_only_in_training() -> None:
    torch.manual_seed(0)
    module, fused = ClassificationHead(8, 3, dropout=0.5), torch.randn(2, 8)
    assert module(fused).shape == (2, 3)
    assert not torch.equal(module(fused), module(fused))
    module.eval()
    assert torch.equal(module(fused), module(fused))
