"""What all parties of a round agree on before anything secret is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fedcore.privacy.secagg.graph import Graph, complete, sparse
from fedcore.privacy.secagg.messages import SiteKeys
from fedcore.privacy.secagg.secrets import frame


@dataclass(frozen=True)
class Terms:
    """The roster (sorted by site), the threshold and the graph of one attempt at a round.

    ``threshold``: so many sites must stay at each stage, and sign the same survivors.
    """

    context: bytes
    roster: tuple[SiteKeys, ...]
    threshold: int
    graph: Graph

    @cached_property
    def keys(self) -> dict[str, SiteKeys]:
        return {keys.site: keys for keys in self.roster}

    @cached_property
    def digest(self) -> bytes:
        """Names these terms. All later messages are bound to it, so that sites to which the
        server showed different rosters do not understand each other."""
        edges = [frame(site, *sorted(near)) for site, near in sorted(self.graph.neighbours.items())]
        return hashlib.sha256(
            frame(roster_digest(self.roster, self.context), self.threshold, self.graph.threshold)
            + frame(*edges)
        ).digest()


def agree(
    roster: Iterable[SiteKeys], context: bytes, threshold: int, neighbours: int | None = None
) -> Terms:
    """The terms that follow from a roster and the plan: the same at the server and at every site.

    ``neighbours``: of the sparse graph; None = the complete one. The order of the sites in the
    sparse graph follows from the keys of all of them, so the server cannot simply choose it.
    Raises ValueError for a threshold of not more than half the sites, or more than all: two sets of
    survivors could each find enough supporters. Also for a site that is named twice.
    """
    ordered = tuple(sorted(roster, key=lambda keys: keys.site))
    sites = [keys.site for keys in ordered]
    if twice := {site for site in sites if sites.count(site) > 1}:
        raise ValueError(f"{min(twice)} is in the roster twice")
    if not len(sites) < 2 * threshold <= 2 * len(sites):
        raise ValueError(
            f"a threshold of {threshold} for {len(sites)} sites; more than half of them and at "
            "most all are needed"
        )
    graph = complete(sites, threshold)
    if neighbours is not None:
        graph = sparse(sites, neighbours, roster_digest(ordered, context))
        if all(len(near) == len(sites) - 1 for near in graph.neighbours.values()):
            graph = complete(sites, threshold)
    return Terms(context, ordered, threshold, graph)


def roster_digest(roster: Iterable[SiteKeys], context: bytes) -> bytes:
    keys = [frame(k.site, k.channel_key, k.mask_key, k.self_commitment) for k in roster]
    return hashlib.sha256(frame("roster", context, *keys)).digest()
