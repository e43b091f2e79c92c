"""The one way out of a site: packed, signed, noted in the egress record, and then put."""

from __future__ import annotations

import math

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.config.plan import Plan, Privacy
from fedcore.privacy.accounting import GaussianEvent, epsilon
from fedcore.records import (
    ClientUpdate,
    Evaluation,
    Message,
    Reply,
    SealedEvaluation,
    SealedUpdate,
)
from fedcore.store import blobs
from fedcore.store.egress import REFUSAL, Departure, Egress
from fedcore.store.exchange import Exchange, Parcel, pack_reply

_SEALED = ("encrypted", "masked", "plain")


class Outbox:
    """Everything that a client says goes through here, so that nothing leaves unrecorded."""

    def __init__(
        self, exchange: Exchange, egress: Egress, identity: Ed25519PrivateKey | None
    ) -> None:
        self._exchange = exchange
        self._egress = egress
        self._identity = identity

    def send(self, reply: Reply, plan: Plan | None = None, round_num: int | None = None) -> None:
        """Note the reply, and put it; what left before is neither noted nor put again.

        ``plan`` and ``round_num``: of the order, where it could be read. Raises OrderRefused, and
        nothing leaves, if something else was about to leave for this place before.
        """
        packed = pack_reply(reply)
        before = self._egress.noted(packed.key)
        again = before is not None and before.content == packed.content
        if again and self._exchange.has_parcel(packed.key):
            return
        head = bytes.fromhex(before.previous) if before and again else self._egress.head
        parcel = packed if self._identity is None else packed.signed(self._identity, head)
        departure = _departure(reply, parcel, plan, round_num)
        if before is None or before.sha256 != departure.sha256:
            self._egress.note(departure)
        self._exchange.put_parcel(parcel)


def _departure(reply: Reply, parcel: Parcel, plan: Plan | None, round_num: int | None) -> Departure:
    privacy = None if plan is None else plan.privacy
    spent, norm = None, None
    if isinstance(reply, ClientUpdate | SealedUpdate):
        norm = reply.measurements.get("update_norm")
        spent = _spent(privacy, round_num)
    return Departure(
        run_id=reply.run_id,
        seq=reply.seq,
        kind=reply.step if isinstance(reply, Message) else _kind(reply),
        destination=parcel.key,
        bytes=len(parcel.data),
        sha256=blobs.digest(parcel.data),
        content=parcel.content,
        protection=_protection(reply),
        round_num=round_num,
        plan_digest=None if plan is None else plan.digest,
        purpose=None if plan is None else plan.purpose,
        clip_norm=None if privacy is None else privacy.clip_norm,
        update_norm=norm,
        noise_multiplier=None if privacy is None else privacy.noise_multiplier,
        epsilon=spent,
    )


def _spent(privacy: Privacy | None, round_num: int | None) -> float | None:
    """The epsilon of the rounds up to this one, with the noise that the plan promises."""
    if privacy is None or round_num is None or privacy.noise_source == "seeded":
        return None
    events = [GaussianEvent(privacy.noise_multiplier, round_num + 1)]
    bound = epsilon(events, privacy.target_delta)
    return bound if math.isfinite(bound) else None


def _kind(reply: Reply) -> str:
    match reply:
        case SealedUpdate() if "masked" in reply.arrays:
            return "masked_input"
        case SealedEvaluation():
            return "masked_statistics"
        case ClientUpdate() | Evaluation() | SealedUpdate():
            return type(reply).__name__
        case _:
            return REFUSAL


def _protection(reply: Reply) -> str:
    match reply:
        case SealedUpdate() | SealedEvaluation():
            return "+".join(name for name in _SEALED if name in reply.arrays)
        case ClientUpdate() | Evaluation() | Message(step="sum"):
            return "plain"  # the sum, because the server reads it: it is of all sites
        case _:
            return "none"
