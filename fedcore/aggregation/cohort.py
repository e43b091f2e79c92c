"""Who takes part in a round."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore import seeds


def sample(
    population: Sequence[str], size: int | None, seed: int, round_num: int
) -> tuple[str, ...]:
    """``size`` sites of the population (all if None or too few), sorted.

    Uniform without replacement: every site draws a number from its own seeded stream and the
    smallest ones take part. So the result depends on the set of sites, not on their order, nor on
    a library's version. The sample is no secret, and no privacy amplification is claimed for it.

    >>> sample(["west", "north", "south"], 2, seed=1, round_num=0)
    ('north', 'west')
    >>> sample(["west", "north", "south"], None, seed=1, round_num=0)
    ('north', 'south', 'west')
    """
    draws = {site: seeds.derive(seed, "cohort", round_num, site) for site in population}
    return tuple(sorted(sorted(draws, key=lambda site: (draws[site], site))[:size]))
