import torch

from fedcore.models.encoders import ConvEncoder


def encoder() -> ConvEncoder:
    torch.manual_seed(0)
    return ConvEncoder(4, features=5)


def test_any_size_of_image_gives_one_vector() -> None:
    module = encoder()
    assert module.features == 5
    for shape in [(16, 16, 16), (21, 24, 18)]:
        assert module(torch.randn(2, 1, *shape)).shape == (2, 5)


def test_a_photo_has_colours_and_no_depth() -> None:
    module = ConvEncoder(4, features=5, channels=3, dimensions=2)
    assert module(torch.randn(2, 3, 21, 24)).shape == (2, 5)


def test_a_subject_does_not_see_the_others_of_its_batch() -> None:
    module, images = encoder().train(), torch.randn(3, 1, 16, 16, 16)
    torch.testing.assert_close(module(images)[:1], module(images[:1]))


def test_place_is_seen_despite_pooling() -> None:
    # Two blobs far from every border: without coordinates, pooling could not tell them apart.
    here, there = torch.zeros(2, 1, 1, 48, 48, 48).unbind()
    here[..., 14:18, 14:18, 14:18] = 5.0
    there[..., 30:34, 30:34, 30:34] = 5.0
    module = encoder()
    assert (module(here) - module(there)).abs().max() > 1e-3
