"""The one way out of a site: packed, signed, noted in the egress record, and then put."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.config.plan import Plan
from fedcore.records import (
    ClientUpdate,
    Evaluation,
    Message,
    Reply,
    SealedEvaluation,
    SealedUpdate,
)
from fedcore.store import blobs
from fedcore.store.budget import Charged
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

    def send(
        self,
        reply: Reply,
        plan: Plan | None = None,
        round_num: int | None = None,
        charged: Charged | None = None,
    ) -> None:
        """Note the reply, and put it; what left before is neither noted nor put again.

        ``plan`` and ``round_num``: of the order, where it could be read. ``charged``: how an update
        was paid for. Raises OrderRefused, and nothing leaves, if something else was about to leave
        for this place before.
        """
        compress = plan is not None and plan.compression.compress
        packed = pack_reply(reply, compress=compress)
        before = self._egress.noted(packed.key)
        again = before is not None and before.content == packed.content
        if again and self._exchange.has_parcel(packed.key):
            return
        head = bytes.fromhex(before.previous) if before and again else self._egress.head
        parcel = packed if self._identity is None else packed.signed(self._identity, head)
        departure = _departure(reply, parcel, plan, round_num, charged)
        if before is None or before.sha256 != departure.sha256:
            self._egress.note(departure)
        self._exchange.put_parcel(parcel)


def _departure(
    reply: Reply,
    parcel: Parcel,
    plan: Plan | None,
    round_num: int | None,
    charged: Charged | None,
) -> Departure:
    privacy = None if plan is None else plan.privacy
    norm = None
    if isinstance(reply, ClientUpdate | SealedUpdate):
        norm = reply.measurements.get("update_norm")
    else:
        charged = None
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
        epsilon=None if charged is None else charged.stated,
        spend=None if charged is None else charged.head,
    )


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
