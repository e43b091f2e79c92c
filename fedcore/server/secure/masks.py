"""Sums behind masks (Bonawitz et al. 2017, https://eprint.iacr.org/2017/281, Figure 4): the server.

The server relays what the sites say to each other, adds what they send, and takes the masks off
the sum with the shares that enough of them reveal. It never holds what would open one update.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fedcore.aggregation import mean
from fedcore.errors import QuorumNotReached, UpdateRejected
from fedcore.params import Params
from fedcore.privacy import fixed_point, secagg
from fedcore.privacy.fixed_point import Grid, Words
from fedcore.privacy.secagg import Roster, Shares, Signatures, SiteKeys, Surviving, Terms
from fedcore.records import Message, SealedUpdate
from fedcore.server.secure.stages import (
    Attempt,
    Decision,
    collect,
    decided,
    enough,
    give_up,
    pass_on,
)


def agree_on_keys(attempt: Attempt) -> tuple[Terms, Decision]:
    """Rounds 0 and 1, before anybody trains: the terms, and who shared its secrets (U2)."""
    roster = decided(attempt, "roster", Decision, lambda: _advertised(attempt))
    keys = Roster.from_json({"keys": list(roster.said.values())})
    terms = secagg.agree(
        keys.keys, attempt.context, attempt.threshold(roster.sites), attempt.secure.neighbours
    )
    told = keys.to_json()
    pass_on(attempt, "roster", dict.fromkeys(roster.sites, told))
    senders = decided(attempt, "senders", Decision, lambda: _shared(attempt, terms, roster))
    sealed = {site: Shares.from_json(body).ciphertexts for site, body in senders.said.items()}
    inboxes = {
        site: Shares({s: shares[site] for s, shares in sealed.items() if site in shares}).to_json()
        for site in senders.sites
    }
    pass_on(attempt, "inbox", inboxes)
    return terms, senders


def unmasked(
    attempt: Attempt, terms: Terms, senders: Decision, survivors: Decision, total: Words
) -> Words:
    """Rounds 3 and 4: ``total``, the sum of the survivors' masked inputs, without its masks.

    Raises QuorumNotReached, and nothing is revealed, if too few sites stay.
    """
    told = Surviving(senders.sites, survivors.sites).to_json()
    pass_on(attempt, "survivors", dict.fromkeys(survivors.sites, told))
    consistent = decided(
        attempt, "signatures", Decision, lambda: _consistent(attempt, terms, senders, survivors)
    )
    signatures = {"signatures": dict(consistent.said)}
    pass_on(attempt, "signatures", dict.fromkeys(consistent.sites, signatures))
    revealed, dropped = collect(
        attempt, "unmask", consistent.sites, lambda said: secagg.Revealed.from_json(said.body)
    )
    enough(attempt, "revealed their shares", revealed, terms.threshold, dropped)
    try:
        return secagg.unmask_sum(total, senders.sites, survivors.sites, revealed, terms)
    except (QuorumNotReached, UpdateRejected) as error:
        give_up(attempt, str(error))


def add(total: Words, update: SealedUpdate) -> None:
    """Add a site's masked input to the sum, in place. Raises UpdateRejected."""
    masked = update.arrays.get("masked")
    if masked is None or masked.dtype != total.dtype or masked.shape != total.shape:
        raise UpdateRejected(f"its masked input is not {total.size} words of {total.dtype}")
    np.add(total, masked, out=total)


def decoded(total: Words, like: Params, grid: Grid) -> mean.Sums:
    """The weighted sum, and the weights, that the words stand for."""
    return mean.Sums(*fixed_point.unflatten(total, like, grid))


def _advertised(attempt: Attempt) -> Decision:
    """U1: whose keys arrived."""
    accepted, context = attempt.run.identities, attempt.context

    def read(said: Message) -> Mapping[str, object]:
        keys = SiteKeys.from_json(said.body)
        return secagg.check_keys(keys, said.site, accepted.get(said.site, ()), context).to_json()

    said, dropped = collect(attempt, "keys", attempt.orders, read)
    wanted = max(attempt.run.plan.cohort.min_clients, attempt.threshold(said))
    enough(attempt, "sent keys", said, wanted, dropped)
    return Decision(tuple(sorted(said)), dropped, said)


def _shared(attempt: Attempt, terms: Terms, roster: Decision) -> Decision:
    """U2: who shared its secrets with all its neighbours."""

    def read(said: Message) -> Mapping[str, object]:
        shares = Shares.from_json(said.body)
        if set(shares.ciphertexts) != set(terms.graph.holders(said.site)):
            raise UpdateRejected("did not share its secrets with exactly its neighbours")
        return shares.to_json()

    said, dropped = collect(attempt, "shares", roster.sites, read)
    enough(attempt, "shared keys", said, terms.threshold, {**roster.dropped, **dropped})
    return Decision(tuple(sorted(said)), {**roster.dropped, **dropped}, said)


def _consistent(attempt: Attempt, terms: Terms, senders: Decision, survivors: Decision) -> Decision:
    """U4: who signed that the survivors are these."""
    accepted = attempt.run.identities

    def read(said: Message) -> str:
        own = Signatures.from_json(said.body)
        if set(own.signatures) != {said.site}:
            raise UpdateRejected("sent other signatures than its own")
        check = partial(secagg.check_signature, survivors=survivors.sites, terms=terms)
        check(own.signatures[said.site], said.site, accepted=accepted.get(said.site, ()))
        return str(said.body["signatures"][said.site])

    said, dropped = collect(attempt, "consistency", survivors.sites, read)
    told = {**survivors.dropped, **dropped}
    enough(attempt, "agreed on who survived", said, terms.threshold, told)
    short = secagg.shortage(senders.sites, survivors.sites, tuple(said), terms)
    if short is not None:
        give_up(attempt, short)
    return Decision(tuple(sorted(said)), dropped, said)
