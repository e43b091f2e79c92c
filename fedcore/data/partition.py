"""How the subjects of a simulated federation are shared out: who has how many of which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedcore import seeds
from fedcore.errors import ConfigError


def dirichlet_counts(
    sizes: Mapping[str, int],
    classes: Sequence[str],
    *,
    alpha: float,
    seed: int,
    minimum: int = 1,
) -> dict[str, dict[str, int]]:
    """Site → class → subjects, with label skew drawn per site from Dirichlet(``alpha``).

    The protocol of Hsu, Qi and Brown 2019 (https://arxiv.org/abs/1909.06335): a small ``alpha``
    gives sites of few classes, a large one the same mix everywhere. Every site keeps ``minimum``
    subjects of every class, so that an AUC is defined there. Sums are exact (largest remainder).
    A site's mix depends on its name, not on the other sites. Raises ConfigError if a size is too
    small for the minimum.

    >>> dirichlet_counts({"north": 10, "east": 6}, ["none", "glioma"], alpha=1e9, seed=0)
    {'north': {'none': 5, 'glioma': 5}, 'east': {'none': 3, 'glioma': 3}}
    """
    counts = {}
    for site, size in sizes.items():
        spare = size - minimum * len(classes)
        if spare < 0:
            raise ConfigError(
                f"site {site!r} has {size} subjects, too few for {minimum} of each of "
                f"{len(classes)} classes; give it at least {minimum * len(classes)}"
            )
        mix = seeds.generator(seed, "partition", site).dirichlet([alpha] * len(classes))
        shares = _largest_remainder(mix, spare)
        counts[site] = {name: minimum + share for name, share in zip(classes, shares, strict=True)}
    return counts


def _largest_remainder(mix: np.ndarray, total: int) -> list[int]:
    """Whole numbers that add up to ``total``, as near to ``mix · total`` as can be (Hamilton)."""
    exact = mix / mix.sum() * total
    whole = np.floor(exact).astype(int)
    largest = np.argsort(whole - exact, kind="stable")
    whole[largest[: total - whole.sum()]] += 1
    return [int(count) for count in whole]
