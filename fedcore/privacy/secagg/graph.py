"""Who shares masks with whom: everybody, or in large cohorts a few neighbours each.

The sparse graph is that of Bell et al. 2020 (https://eprint.iacr.org/2020/704, section 3): a
k-regular Harary graph over a random order of the sites, in which a site exchanges masks and shares
with k others, k logarithmic in the cohort. What goes wrong with small probability is bounded by
hypergeometric tails.

The order follows from all the keys of the round. That keeps a server from choosing it, unless sites
on its side try many keys until their places suit it: against those, use the complete graph. (Bell
et al.'s own answer, section 4, lets every site choose its neighbours, for one exchange more.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcore.privacy.secagg.secrets import frame


@dataclass(frozen=True)
class Graph:
    """``neighbours`` by site, symmetric; ``threshold`` shares of a neighbourhood (the neighbours
    and the site itself) open a secret."""

    neighbours: Mapping[str, frozenset[str]]
    threshold: int

    def of(self, site: str) -> frozenset[str]:
        return self.neighbours[site]

    def holders(self, site: str) -> tuple[str, ...]:
        """Who holds a share of this site's secrets, sorted: its neighbours and itself."""
        return tuple(sorted(self.neighbours[site] | {site}))


def default_threshold(sites: int) -> int:
    """⌊2n/3⌋ + 1: against an active server with up to n/3 sites on its side (Bonawitz et al.
    2017, section 6).

    >>> [default_threshold(n) for n in (2, 3, 4, 10, 100)]
    [2, 3, 3, 7, 67]
    """
    return 2 * sites // 3 + 1


def complete(sites: Sequence[str], threshold: int) -> Graph:
    """Every site is everybody's neighbour."""
    everybody = frozenset(sites)
    return Graph({site: everybody - {site} for site in sorted(sites)}, threshold)


def sparse(
    sites: Sequence[str], neighbours: int, seed: bytes, threshold: int | None = None
) -> Graph:
    """A Harary graph: in an order drawn from ``seed``, each site and the ``neighbours`` nearest.

    An odd number, where it would be, is rounded up. ``threshold``: unset = more than half of a
    neighbourhood. Complete where no site has that many others.
    """
    order = sorted(sites, key=lambda site: hashlib.sha256(frame(seed, site)).digest())
    count, reach = len(order), (neighbours + 1) // 2
    if 2 * reach >= count - 1:
        return complete(sites, threshold or _majority(count))
    near = [offset for offset in range(-reach, reach + 1) if offset]
    edges = {
        site: frozenset(order[(place + offset) % count] for offset in near)
        for place, site in enumerate(order)
    }
    return Graph(edges, threshold or _majority(2 * reach + 1))


def neighbours(
    sites: int, gamma: float = 0.2, delta: float = 0.2, sigma: int = 40, eta: int = 30
) -> tuple[int, int]:
    """How many neighbours make a sparse graph of ``sites`` good enough, and its threshold.

    Of the sites at most a share ``gamma`` colludes with the server and at most ``delta`` drops out.
    Except with probability 2^-sigma, fewer than the threshold of anybody's neighbours collude and
    the rest of the graph is connected; except with probability 2^-eta, at least the threshold of
    everybody's neighbours stay (Bell et al. 2020, section 3, with the hypergeometric tails
    themselves instead of their closed bounds). Each probability is summed over all sites. The
    threshold is that of ``sparse``, more than half of a neighbourhood. Raises ValueError where not
    even the complete graph is good enough.

    >>> [neighbours(n)[0] for n in (100, 1000, 10_000)]
    [54, 118, 146]
    """
    from scipy.stats import hypergeom

    if not 0 <= gamma < 1 or not 0 <= delta < 1 or not gamma + delta < 1:
        raise ValueError(f"gamma {gamma} and delta {delta} must be shares with a sum below 1")
    others, corrupt, dropped = sites - 1, int(gamma * sites), int(delta * sites)
    for degree in [*range(2, others, 2), others]:
        # The Harary graph falls apart only where degree/2 sites next to each other are lost.
        reach = degree // 2
        cut = sites * hypergeom.pmf(reach, sites, corrupt + dropped, reach)
        if degree < others and cut > 2.0**-sigma:
            continue
        threshold = _majority(degree + 1)
        # Summed from the small end: 1 − cdf would lose everything below 1e-16.
        reached = sum(hypergeom.pmf(np.arange(degree, threshold - 1, -1), others, corrupt, degree))
        left = sum(hypergeom.pmf(np.arange(threshold), others, others - dropped, degree))
        if sites * reached <= 2.0**-sigma and sites * left <= 2.0**-eta:
            return degree, threshold
    raise ValueError(
        f"with {sites} sites, {gamma} of them colluding and {delta} dropping out, no graph is good "
        "enough: those who stay are too few to tell from those who collude"
    )


def _majority(holders: int) -> int:
    return holders // 2 + 1
