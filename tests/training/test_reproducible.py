import random

import numpy as np
import pytest
import torch

from fedcore.training.reproducible import reproducible


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


def test_all_generators_start_from_the_seed() -> None:
    with reproducible(1, threads=1):
        first = draws()
    draws()
    with reproducible(1, threads=1):
        assert draws() == first
    with reproducible(2, threads=1):
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_everything_is_put_back_even_after_an_error() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    expected = draws()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    threads = torch.get_num_threads()

    def fail() -> None:
        with reproducible(1, threads=threads + 1):
            assert torch.get_num_threads() == threads + 1
            assert torch.are_deterministic_algorithms_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert draws() == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
