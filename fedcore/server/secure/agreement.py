"""What the sites of a secure round agree on through the server: keys, and whose update counts.

Rounds 0, 1, 3 and 4 of Bonawitz et al. 2017 (https://eprint.iacr.org/2017/281, Figure 4). The
server relays what the sites say to each other; it cannot read it, nor change it unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fedcore.errors import QuorumNotReached, UpdateRejected
from fedcore.privacy import secagg
from fedcore.privacy.division import Division
from fedcore.privacy.fixed_point import Words
from fedcore.privacy.secagg import Holdings, Roster, Shares, Signatures, SiteKeys, Surviving, Terms
from fedcore.records import Message
from fedcore.server.secure.stages import (
    Attempt,
    Decision,
    collect,
    decided,
    enough,
    given_up,
    pass_on,
)


def agree_on_keys(
    attempt: Attempt, divide: Callable[[int], Division]
) -> tuple[Terms, Division, Decision]:
    """Before anybody works: the terms, how it travels, and who shared its keys (U2).

    ``divide``: how a site's vector travels where so many sites take part.
    """
    roster = decided(attempt, "roster", Decision, lambda: _advertised(attempt))
    keys = Roster.from_json({"keys": list(roster.said.values())})
    terms = secagg.agree(
        keys.keys, attempt.context, attempt.threshold(roster.sites), attempt.secure.neighbours
    )
    pass_on(attempt, "roster", dict.fromkeys(roster.sites, keys.to_json()))
    divided = divide(len(roster.sites))
    sharing = _Sharing(attempt, terms, divided)
    senders = decided(attempt, "senders", Decision, lambda: sharing.collect(roster))
    pass_on(attempt, "inbox", {site: sharing.inbox(site, senders) for site in senders.sites})
    return terms, divided, senders


def agree_on_survivors(
    attempt: Attempt, terms: Terms, senders: Decision, survivors: Decision
) -> Decision:
    """After the masked inputs came: who signed that the sum is over these (U4).

    Raises QuorumNotReached if too few do: nothing is opened then.
    """
    told = Surviving(senders.sites, survivors.sites).to_json()
    pass_on(attempt, "survivors", dict.fromkeys(survivors.sites, told))
    consistent = decided(
        attempt, "signatures", Decision, lambda: _consistent(attempt, terms, senders, survivors)
    )
    signatures = {"signatures": dict(consistent.said)}
    pass_on(attempt, "signatures", dict.fromkeys(consistent.sites, signatures))
    return consistent


def unmasked(
    attempt: Attempt,
    terms: Terms,
    senders: Decision,
    survivors: Decision,
    consistent: Decision,
    total: Words,
) -> Words:
    """``total``, the sum of the survivors' masked inputs, without its masks.

    Raises QuorumNotReached, and nothing is revealed, if too few sites stay.
    """
    revealed, dropped = collect(
        attempt, "unmask", consistent.sites, lambda said: secagg.Revealed.from_json(said.body)
    )
    enough(attempt, "revealed their shares", revealed, terms.threshold, dropped)
    try:
        return secagg.unmask_sum(total, senders.sites, survivors.sites, revealed, terms)
    except (QuorumNotReached, UpdateRejected) as error:
        raise given_up(attempt, str(error)) from error


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


class _Sharing:
    """Round 1: shares of the masks' secrets, and the key that encrypts, from site to site."""

    def __init__(self, attempt: Attempt, terms: Terms, divided: Division) -> None:
        self._attempt, self._terms, self._divided = attempt, terms, divided
        self._maker: str | None = None
        if divided.parameters is not None:
            from fedcore.privacy import ckks

            turn = attempt.round_num + attempt.number
            self._maker = ckks.maker([keys.site for keys in terms.roster], turn)

    def collect(self, roster: Decision) -> Decision:
        """U2: who shared all that it has to."""
        said, dropped = collect(self._attempt, "shares", roster.sites, self._read)
        told = {**roster.dropped, **dropped}
        enough(self._attempt, "shared keys", said, self._terms.threshold, told)
        if self._maker is not None and self._maker not in said:
            raise given_up(
                self._attempt,
                f"{self._maker}, who was to make the key, did not ({told[self._maker]})",
            )
        return Decision(tuple(sorted(said)), told, said)

    def inbox(self, site: str, senders: Decision) -> dict[str, Any]:
        """What the others shared with this site."""
        inbox: dict[str, Any] = {}
        if self._divided.grid is not None:
            sealed = {
                sender: body["masks"]["ciphertexts"][site]
                for sender, body in senders.said.items()
                if site in body["masks"]["ciphertexts"]
            }
            inbox["masks"] = {"ciphertexts": sealed}
        if self._attempt.split == "train":
            told = {
                sender: body["modules"]["ciphertexts"][site]
                for sender, body in senders.said.items()
                if sender != site
            }
            inbox["modules"] = {"ciphertexts": told}
        if self._maker is not None and site != self._maker:
            inbox["key"] = senders.said[self._maker]["keys"][site]
        return inbox

    def _read(self, said: Message) -> dict[str, Any]:
        """The shares of one site. Raises UpdateRejected if not all are there."""
        read: dict[str, Any] = {}
        if self._divided.grid is not None:
            shares = Shares.from_json(said.body.get("masks", {}))
            if set(shares.ciphertexts) != set(self._terms.graph.holders(said.site)):
                raise UpdateRejected("did not share its secrets with exactly its neighbours")
            read["masks"] = shares.to_json()
        if self._attempt.split == "train":
            holdings = Holdings.from_json(said.body.get("modules", {}))
            if set(holdings.ciphertexts) != {keys.site for keys in self._terms.roster} - {
                said.site
            }:
                raise UpdateRejected("did not tell exactly the others which modules it trains")
            read["modules"] = holdings.to_json()
        if said.site == self._maker:
            from fedcore.privacy.ckks import SealedKey

            others = {keys.site for keys in self._terms.roster} - {said.site}
            sealed = said.body.get("keys", {})
            if not isinstance(sealed, Mapping) or set(sealed) != others:
                raise UpdateRejected("did not hand its key over to all the others")
            read["keys"] = {peer: SealedKey.from_json(k).to_json() for peer, k in sealed.items()}
        return read


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
        raise given_up(attempt, short)
    return Decision(tuple(sorted(said)), dropped, said)
