"""A sum that is all the server sees: what the site says, step by step.

The conversation is that of Bonawitz et al. 2017 (https://eprint.iacr.org/2017/281, Figure 4), for
encrypted sums too: the sites agree on who takes part, and on whose updates are in the sum, before
anything opens it. All but the update itself is small. A client that was killed and started again
goes through the same steps with the same secrets, and says the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.client.private import Private
from fedcore.client.summand import Summand
from fedcore.client.talk import Talk
from fedcore.config.plan import Plan
from fedcore.errors import OrderRefused
from fedcore.privacy import secagg
from fedcore.privacy.division import Division
from fedcore.privacy.secagg import Roster, Secrets, Shares, Signatures, Surviving, Terms
from fedcore.privacy.secagg.client import Identities
from fedcore.records import Reply, SealedEvaluation, SealedUpdate

if TYPE_CHECKING:  # TenSEAL is there only where a plan encrypts
    from fedcore.client.keyholder import Keyholder


@dataclass(frozen=True)
class Partner:
    """What a site brings to a secure round: its identity, and those it accepts of others."""

    identity: Ed25519PrivateKey
    identities: Identities


@dataclass(frozen=True)
class SecureRound:
    """One site's part in one attempt at one sum: of updates, or of statistics."""

    talk: Talk
    private: Private
    partner: Partner
    plan: Plan
    summand: Summand

    def replies(self) -> Iterator[Reply | None]:
        """What the site says, one after the other; None where it must wait.

        Raises OrderRefused where the server, or what it passes on, cannot be honest.
        """
        talk, site, identities = self.talk, self.talk.order.site, self.partner.identities
        self.private.begin()
        context = secagg.context_of(*talk.order.names_attempt())
        seed = self.private.remember("seed", lambda: os.urandom(32))
        secrets = Secrets.from_seed(seed, context)

        talk.step = "keys"
        keys = secagg.advertise_keys(site, secrets, self.partner.identity, context)
        yield talk.say("keys", keys.to_json())
        told = yield from talk.hear("roster", "shares")
        terms = self._terms(Roster.from_json(told, OrderRefused), secrets, context)
        divided = self.summand.division(len(terms.roster))
        key = self._keyholder(divided, secrets, terms)

        yield talk.say("shares", self._shares(divided, key, secrets, terms))
        told = yield from talk.hear("inbox", None)
        inbox: Mapping[str, bytes] = {}
        if divided.grid is not None:
            inbox = Shares.from_json(told.get("masks", {}), OrderRefused).ciphertexts
            secagg.check_inbox(site, secrets, inbox, terms)
        known = self._known(told, inbox if divided.grid is not None else None, secrets, terms)
        if key is not None:
            key.receive(told.get("key"))

        if not talk.sent_update():
            yield self._sealed(divided, key, secrets, inbox, terms, known)

        told = yield from talk.hear("survivors", "consistency")
        surviving = Surviving.from_json(told, OrderRefused)
        if site not in surviving.survivors:
            raise OrderRefused("the server asks for a signature under a sum without this site")
        if known:
            secagg.check_survivors(known, surviving.survivors, terms)
        if key is not None:
            self.private.open_for(surviving.survivors)  # one site alone can open what is encrypted
        signature = secagg.check_consistency(self.partner.identity, surviving.survivors, terms)
        yield talk.say("consistency", Signatures({site: signature}).to_json())
        told = yield from talk.hear("signatures", "unmask")
        signatures = Signatures.from_json(told, OrderRefused).signatures
        secagg.check_signatures(surviving.survivors, signatures, identities, terms)
        if divided.grid is not None:
            self.private.open_for(surviving.survivors)
            revealed = secagg.unmask(
                site, secrets, inbox, surviving.senders, surviving.survivors, terms
            )
            yield talk.say("unmask", revealed.to_json())
        if key is not None and (yield from talk.hear_or_leave("decrypt", "sum")) is not None:
            yield key.opened_sum(divided.encrypted, surviving.survivors)

    def _terms(self, roster: Roster, secrets: Secrets, context: bytes) -> Terms:
        sites, rule = len(roster.keys), self.plan.secure_aggregation
        wanted = self.plan.cohort.min_clients
        if sites < wanted:
            raise OrderRefused(f"{sites} sites in the roster, and the plan wants {wanted}")
        threshold = rule.threshold or secagg.default_threshold(sites)
        return secagg.check_roster(
            roster.keys,
            self.talk.order.site,
            secrets,
            self.partner.identities,
            context,
            threshold,
            rule.neighbours,
        )

    def _known(
        self, told: Mapping[str, Any], inbox: Mapping[str, bytes] | None, secrets: Secrets,
        terms: Terms,
    ) -> dict[str, frozenset[str]]:  # fmt: skip
        """Who trains which modules, as the sites told this one; nothing where none are summed.

        Raises OrderRefused where the shares of a neighbour came without it, or it without them.
        """
        modules, site = self.summand.modules(), self.talk.order.site
        if not modules:
            return {}
        sealed = secagg.Holdings.from_json(told.get("modules", {}), OrderRefused).ciphertexts
        if inbox is not None and (set(inbox) ^ set(sealed)) & terms.graph.of(site):
            raise OrderRefused("shares came without the modules that their sender trains")
        others = secagg.open_holdings(sealed, modules, site, secrets, terms)
        return {**others, site: self.summand.held()}

    def _keyholder(self, divided: Division, secrets: Secrets, terms: Terms) -> Keyholder | None:
        if divided.parameters is None:
            return None
        from fedcore.client.keyholder import Keyholder

        return Keyholder(
            self.talk, self.private, self.partner.identity, self.partner.identities,
            secrets.channel, terms, divided.parameters,
        )  # fmt: skip

    def _shares(
        self, divided: Division, key: Keyholder | None, secrets: Secrets, terms: Terms
    ) -> dict[str, Any]:
        """What this site shares. Sharing draws fresh randomness: what was drawn first is said."""
        site = self.talk.order.site

        def share() -> bytes:
            body: dict[str, Any] = {}
            if divided.grid is not None:
                body["masks"] = Shares(secagg.share_keys(site, secrets, terms)).to_json()
            if key is not None:
                body["keys"] = key.hand_over()
            if modules := self.summand.modules():
                sealed = secagg.seal_holdings(self.summand.held(), modules, site, secrets, terms)
                body["modules"] = secagg.Holdings(sealed).to_json()
            return json.dumps(body).encode()

        shared: dict[str, Any] = json.loads(self.private.remember("shares", share))
        return shared

    def _sealed(
        self,
        divided: Division,
        key: Keyholder | None,
        secrets: Secrets,
        inbox: Mapping[str, bytes],
        terms: Terms,
        known: Mapping[str, frozenset[str]],
    ) -> SealedUpdate | SealedEvaluation:
        """Do the work, and let its result leave in such parts as the plan says."""
        parts, cover = self.summand.make(divided, secagg.shared_by_enough(known))
        arrays: dict[str, Any] = {}
        if parts.masked is not None:
            site = self.talk.order.site
            arrays["masked"] = secagg.masked_input(parts.masked, site, secrets, inbox, terms)
        if key is not None and parts.encrypted is not None:
            arrays |= key.encrypted(parts.encrypted)
        if parts.plain is not None:
            arrays["plain"] = parts.plain
        return replace(cover, arrays=arrays)
