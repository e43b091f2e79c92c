"""The same result for the same seed, data and threads, whatever this process did before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fedcore.seeds import derive


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Inside, every generator starts from ``seed`` and torch sums in ``threads`` threads.

    Covers torch, and NumPy's and Python's global generators because a dataset that is brought
    along may draw from them. Operations without a deterministic form (some, on GPUs) warn instead
    of failing. Everything is put back at the end.
    """
    threads_before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "torch"))
            np.random.seed(derive(seed, "numpy") % 2**32)
            random.seed(derive(seed, "python"))
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads_before)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
