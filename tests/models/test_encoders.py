import torch

from fedcore.models.encoders import ConvEncoder


def encoder(**arguments: int) -> ConvEncoder:
    torch.manual_seed(0)
    return ConvEncoder(**({"width": 4, "features": 12} | arguments)).eval()


def test_any_size_of_image_gives_features() -> None:
    module = encoder()
    for shape in [(16, 16, 16), (21, 24, 19), (40, 48, 40)]:
        assert module(torch.randn(2, 1, *shape)).shape == (2, module.features)


def test_a_subject_does_not_see_the_others_of_its_batch() -> None:
    module, images = encoder(), torch.randn(3, 1, 16, 16, 16)
    together = module.train()(images)
    alone = module(images[:1])
    torch.testing.assert_close(together[:1], alone)


def test_place_is_seen_despite_pooling() -> None:
    # Two blobs far from every border: without coordinates, pooling could not tell them apart.
    here, there = torch.zeros(2, 1, 1, 64, 64, 64)
    here[..., 24:26, 24:26, 24:26] = 5.0
    there[..., 40:42, 40:42, 40:42] = 5.0
    module = encoder()
    assert (module(here) - module(there)).abs().max() > 1e-3
