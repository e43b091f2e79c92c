import torch

from fedcore.models.encoders import ConvEncoder


def test_any_size_of_image_gives_maps_of_a_quarter() -> None:
    module = ConvEncoder(4)
    assert module.features == 8
    for shape, quarter in [((16, 16, 16), (4, 4, 4)), ((21, 24, 18), (6, 6, 5))]:
        assert module(torch.randn(2, 1, *shape)).shape == (2, 8, *quarter)


def test_a_subject_does_not_see_the_others_of_its_batch() -> None:
    module, images = ConvEncoder(4).train(), torch.randn(3, 1, 16, 16, 16)
    torch.testing.assert_close(module(images)[:1], module(images[:1]))
