"""A round behind masks (Bonawitz et al. 2017, https://eprint.iacr.org/2017/281): the site.

All but the update itself is small. A client that was killed and started again goes through the
same steps with the same secrets, and says the same; what it said already stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore import seeds
from fedcore.client.private import Private
from fedcore.client.talk import Talk
from fedcore.config.plan import Plan
from fedcore.errors import OrderRefused
from fedcore.params import Params
from fedcore.privacy import fixed_point, secagg
from fedcore.privacy.secagg import Roster, Secrets, Shares, Signatures, Surviving
from fedcore.privacy.secagg.client import Identities
from fedcore.records import ClientUpdate, DataSummary, Reply, SealedUpdate, TrainOrder


@dataclass(frozen=True)
class Partner:
    """What a site brings to a secure round: its identity, and those it accepts of others."""

    identity: Ed25519PrivateKey
    identities: Identities


def masked_round(
    talk: Talk,
    private: Private,
    partner: Partner,
    plan: Plan,
    params: Params,
    train: Callable[[], ClientUpdate],
) -> Iterator[Reply | None]:
    """What the site says in this round, step by step; None where it must wait.

    ``train`` is called once the keys are agreed on. Raises OrderRefused where the server, or what
    it passes on, cannot be honest.
    """
    site, order, rule = talk.order.site, talk.order, plan.secure_aggregation
    private.begin()
    context = secagg.context_of(*order.names_attempt())
    secrets = Secrets.from_seed(private.remember("seed", lambda: os.urandom(32)), context)

    talk.step = "keys"
    keys = secagg.advertise_keys(site, secrets, partner.identity, context)
    yield talk.say("keys", keys.to_json())
    roster = Roster.from_json((yield from talk.hear("roster", "shares")), OrderRefused).keys
    threshold = rule.threshold or secagg.default_threshold(len(roster))
    if len(roster) < plan.cohort.min_clients:
        raise OrderRefused(f"{len(roster)} sites in the roster, fewer than the plan's min_clients")
    terms = secagg.check_roster(
        roster, site, secrets, partner.identities, context, threshold, rule.neighbours
    )

    # Sharing draws fresh randomness, so what was drawn first is what is said, always.
    shared = private.remember(
        "shares", lambda: _bytes(Shares(secagg.share_keys(site, secrets, terms)).to_json())
    )
    yield talk.say("shares", json.loads(shared))
    inbox = Shares.from_json((yield from talk.hear("inbox", None)), OrderRefused).ciphertexts
    secagg.check_inbox(site, secrets, inbox, terms)

    if not talk.sent_update():
        update = train()
        bound = plan.privacy.clip_norm or 0.0  # a secure plan without it is refused
        grid = fixed_point.grid(rule.bits, bound, len(roster))
        words = fixed_point.flatten(
            update.update, update.weights, params, grid, rounding_key(plan, order)
        )
        yield sealed(update, {"masked": secagg.masked_input(words, site, secrets, inbox, terms)})

    told = yield from talk.hear("survivors", "consistency")
    surviving = Surviving.from_json(told, OrderRefused)
    if site not in surviving.survivors:
        raise OrderRefused("the server asks for a signature under a sum without this site")
    signature = secagg.check_consistency(partner.identity, surviving.survivors, terms)
    yield talk.say("consistency", Signatures({site: signature}).to_json())
    told = yield from talk.hear("signatures", "unmask")
    signatures = Signatures.from_json(told, OrderRefused).signatures
    secagg.check_signatures(surviving.survivors, signatures, partner.identities, terms)
    revealed = secagg.unmask(site, secrets, inbox, surviving.senders, surviving.survivors, terms)
    yield talk.say("unmask", revealed.to_json())


def rounding_key(plan: Plan, order: TrainOrder) -> bytes:
    """The 32 bytes that rounding draws from.

    They are no secret, so that a round done again gives the same sum: what hides the update are
    the masks.
    """
    number = seeds.derive(plan.seed, "rounding", order.site, order.round_num)
    return hashlib.sha256(str(number).encode()).digest()


def sealed(update: ClientUpdate, arrays: dict[str, np.ndarray]) -> SealedUpdate:
    """The update with nothing but ``arrays`` of it, and nothing of what the site has or learnt."""
    kept = {
        name: value
        for name, value in update.measurements.items()
        if name.startswith("seconds.") or name == "bytes_down"
    }
    return SealedUpdate(
        update.site,
        update.run_id,
        update.seq,
        update.order_digest,
        arrays,
        data=without_modalities(update.data),
        measurements=kept,
    )


def without_modalities(data: DataSummary) -> DataSummary:
    """What may be told where nobody is to know which site has which scanner."""
    return replace(data, modalities={})


def _bytes(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()
