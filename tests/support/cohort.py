"""A cohort that plays a round of secure aggregation in memory, with an honest server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.errors import QuorumNotReached
from fedcore.privacy import secagg
from fedcore.privacy.secagg import Revealed, Secrets, SiteKeys, Terms

STAGES = ("shares", "masked", "consistency", "unmask")
"""A site that vanishes at a stage sends nothing from then on."""


def names(count: int) -> list[str]:
    return [f"site-{index:03}" for index in range(count)]


@dataclass
class Cohort:
    """The sites of one attempt at a round, all with their keys advertised."""

    sites: list[str]
    threshold: int
    neighbours: int | None = None
    context: bytes = secagg.context_of("run-1", "plan", 0, 0)
    identities: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    secrets: dict[str, Secrets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for site in self.sites:
            key = site.encode().ljust(32)[:32]
            self.identities.setdefault(site, Ed25519PrivateKey.from_private_bytes(key))
            self.secrets.setdefault(site, Secrets.from_seed(key, self.context))
        self.accepted = {site: [key.public_key()] for site, key in self.identities.items()}
        self.roster = [self.keys(site) for site in self.sites]
        self.terms = secagg.agree(self.roster, self.context, self.threshold, self.neighbours)

    def keys(self, site: str) -> SiteKeys:
        return secagg.advertise_keys(site, self.secrets[site], self.identities[site], self.context)

    def check_roster(self, site: str, roster: list[SiteKeys] | None = None) -> Terms:
        return secagg.check_roster(
            self.roster if roster is None else roster,
            site,
            self.secrets[site],
            self.accepted,
            self.context,
            self.threshold,
            self.neighbours,
        )

    def unmask(
        self,
        site: str,
        inbox: Mapping[str, bytes],
        senders: Collection[str],
        survivors: Collection[str],
    ) -> Revealed:
        return secagg.unmask(site, self.secrets[site], inbox, senders, survivors, self.terms)

    def inboxes(self, senders: Collection[str]) -> dict[str, dict[str, bytes]]:
        shared = {s: secagg.share_keys(s, self.secrets[s], self.terms) for s in senders}
        return {
            to: {sender: sealed[to] for sender, sealed in shared.items() if to in sealed}
            for to in senders
        }


@dataclass
class Played:
    """How far a round came, and what left the sites on the way."""

    senders: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)
    masked: dict[str, np.ndarray] = field(default_factory=dict)
    revealed: dict[str, Revealed] = field(default_factory=dict)
    total: np.ndarray | None = None
    unmasked: np.ndarray | None = None


def play(
    cohort: Cohort,
    vectors: Mapping[str, np.ndarray],
    vanish: Mapping[str, str],
    played: Played | None = None,
) -> Played:
    """One round; ``vanish``: site → stage. Raises QuorumNotReached as the server would; ``played``
    then says what had happened by then."""
    played = played if played is not None else Played()
    terms = cohort.terms

    def there(stage: str, sites: Collection[str]) -> list[str]:
        gone = STAGES[: STAGES.index(stage) + 1]
        left = [site for site in sites if vanish.get(site) not in gone]
        if len(left) < terms.threshold:
            raise QuorumNotReached(f"{len(left)} sites are left at {stage}")
        return left

    assert all(cohort.check_roster(site).digest == terms.digest for site in cohort.sites)
    played.senders = there("shares", cohort.sites)
    inboxes = cohort.inboxes(played.senders)
    played.survivors = there("masked", played.senders)
    for site in played.survivors:
        secrets = cohort.secrets[site]
        secagg.check_inbox(site, secrets, inboxes[site], terms)
        vector = vectors[site].copy()
        played.masked[site] = secagg.masked_input(vector, site, secrets, played.senders, terms)
    played.total = sum(played.masked.values(), np.zeros_like(vector))
    if reason := secagg.shortage(played.senders, played.survivors, played.survivors, terms):
        raise QuorumNotReached(reason)
    signatures = {
        site: secagg.check_consistency(cohort.identities[site], played.survivors, terms)
        for site in there("consistency", played.survivors)
    }
    for site in [site for site in signatures if vanish.get(site) != "unmask"]:
        secagg.check_signatures(played.survivors, signatures, cohort.accepted, terms)
        played.revealed[site] = cohort.unmask(site, inboxes[site], played.senders, played.survivors)
    played.unmasked = secagg.unmask_sum(
        played.total.copy(), played.senders, played.survivors, played.revealed, terms
    )
    return played
