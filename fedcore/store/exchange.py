"""The exchange bucket: the only thing both sides touch, and where everything in it lies.

    params/<run>/plan.json                    server writes, every site reads
    params/<run>/<round>.safetensors          global params at the start of that round
    params/<run>/<round>.change.safetensors   what the round before changed in them, coded
    params/<run>/model.onnx                   the export, for the sites to check
    params/<run>/model.onnx.zst               the same for those who have the params it is of
    orders/<site>/<run>/<seq>.json            server writes, this site reads; signed
    replies/<site>/<run>/<seq>.safetensors    this site writes, server reads
    …/<seq>.<step>.…                          the conversation of a secure round, likewise
    records/<run>/…                           server only

What a credential may do is a matter of its prefix, which every S3 service can express. Every
object here is written once: a retry, a restarted Job or a second server finds what is there and
goes on. Keys are deterministic, so that a site needs no LIST and never learns who else takes part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from fedcore.compression import container
from fedcore.compression.codec import Arrays
from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.errors import BlobError, Conflict, NotFound, OrderRefused, UpdateRejected
from fedcore.params import Params, digest
from fedcore.records import (
    EvalOrder,
    FinishOrder,
    Order,
    Refusal,
    Relay,
    Reply,
    Step,
    TrainOrder,
)
from fedcore.store import blobs, envelope
from fedcore.store.api import Store
from fedcore.store.identity import NO_HEAD, Roll, open_reply, sign_reply

_ORDER: TypeAdapter[Order] = TypeAdapter(
    Annotated[TrainOrder | EvalOrder | FinishOrder, Field(discriminator="kind")]
)
_RELAY = TypeAdapter(Relay)
_REPLIES: dict[str, type[Reply]] = {kind.__name__: kind for kind in get_args(Reply)}
_ARRAYS = {
    "ClientUpdate": "update",
    "SealedUpdate": "arrays",
    "SealedEvaluation": "arrays",
    "Message": "arrays",
    "Evaluation": "statistics",
}
_MAX_RELAY = 1 << 24
_MAX_GRAPH = 1 << 26  # bytes of an export beside its params
_OTHER_ONNX = "the ONNX model in the exchange is not the one that the order names"
RecordT = TypeVar("RecordT")


class Grants(NamedTuple):
    """The key prefixes that a site's credential needs in the exchange bucket, and no others."""

    read: tuple[str, ...]
    write: tuple[str, ...]


def grants(site: str) -> Grants:
    """What ``site`` may read and write: it may also read its own replies back."""
    return Grants(
        read=("params/", f"orders/{site}/", f"replies/{site}/"), write=(f"replies/{site}/",)
    )


class Received(NamedTuple):
    """An order as it was received, and the digest that names its signed bytes."""

    order: Order
    digest: str


class Parcel(NamedTuple):
    """A reply as bytes, and the key it is put under.

    ``content``: digest of what it says, without how long that took: the same if it is said again.
    """

    key: str
    data: bytes
    content: str

    def signed(self, identity: Ed25519PrivateKey, head: bytes = NO_HEAD) -> Parcel:
        """With the identity's signature, and how far the site's egress record goes."""
        return self._replace(data=sign_reply(self.data, identity, head))


class Exchange:
    """Typed access to the exchange bucket. Holds no state of its own.

    ``roll``: whose signature a reply needs, for the server.
    """

    def __init__(self, store: Store, roll: Roll | None = None) -> None:
        self._store = store
        self._roll = roll or Roll()

    @property
    def identities(self) -> Mapping[str, Sequence[Ed25519PublicKey]]:
        """The identities accepted for each site."""
        return self._roll.accepted

    # what every site may read

    def publish_plan(self, run_id: str, plan: Plan) -> None:
        """Raises Conflict if the run was started with another plan."""
        self._create(f"params/{run_id}/plan.json", plan.canonical())

    def plan(self, run_id: str, plan_digest: str | None = None) -> Plan:
        """The run's plan. Raises OrderRefused if its digest is not the one wanted."""
        text = self._store.get(f"params/{run_id}/plan.json").decode()
        try:
            plan = Plan.model_validate_json(text)
        except ValidationError:  # the parser of plan files says where the fault is
            plan = plans.parse(text, source=f"plan of run {run_id}")
        if plan_digest is not None and plan.digest != plan_digest:
            raise OrderRefused("the plan in the exchange is not the one that the order names")
        return plan

    def publish_params(self, run_id: str, round_num: int, params: Params) -> None:
        """The global params at the start of ``round_num``."""
        self._create(_params_key(run_id, round_num), blobs.pack(params))

    def params(self, run_id: str, round_num: int, params_digest: str) -> tuple[Params, int]:
        """The params and their size in bytes. Raises OrderRefused if the digest differs."""
        data = self._store.get(_params_key(run_id, round_num))
        arrays, _ = blobs.unpack(data)
        if digest(arrays) != params_digest:
            raise OrderRefused("the params in the exchange are not those that the order names")
        return arrays, len(data)

    def publish_change(
        self, run_id: str, round_num: int, change: Arrays, *, compress: bool
    ) -> None:
        """What led from the params before to those at the start of ``round_num``."""
        self._create(_change_key(run_id, round_num), blobs.pack(change, compress=compress))

    def change(self, run_id: str, round_num: int, max_bytes: int) -> tuple[Arrays, int]:
        """The change and its size in bytes, which nobody signed: what it leads to has a digest."""
        data = self._store.get(_change_key(run_id, round_num), max_bytes=max_bytes)
        return blobs.unpack(data, max_bytes)[0], len(data)

    def publish_onnx(self, run_id: str, model: bytes, known: Params | None = None) -> None:
        """The export that the sites compare with PyTorch before it may be released.

        ``known``: the params that it is of, for a copy that leaves out what is in them.
        """
        if known is not None:
            copy = container.compress([model], past=_bytes_of(known))
            self._store.create(f"{_onnx_key(run_id)}.zst", copy)
        self._store.create(_onnx_key(run_id), model)

    def onnx(self, run_id: str, onnx_digest: str | None = None) -> bytes:
        """The run's export. Raises NotFound; OrderRefused if its digest is not the one wanted."""
        model = self._store.get(_onnx_key(run_id))
        if onnx_digest is not None and blobs.digest(model) != onnx_digest:
            raise OrderRefused(_OTHER_ONNX)
        return model

    def onnx_beside(self, run_id: str, onnx_digest: str, known: Params) -> tuple[bytes, int]:
        """The export from its copy for those who have the params ``known``, and the copy's size.

        Raises as ``onnx`` does.
        """
        past = _bytes_of(known)
        copy = self._store.get(f"{_onnx_key(run_id)}.zst", max_bytes=len(past) + _MAX_GRAPH)
        try:
            model = container.expand(copy, 2 * len(past) + _MAX_GRAPH, past)
        except BlobError as error:
            raise OrderRefused(_OTHER_ONNX) from error
        if blobs.digest(model) != onnx_digest:
            raise OrderRefused(_OTHER_ONNX)
        return model, len(copy)

    # orders

    def put_order(self, order: Order, key: Ed25519PrivateKey) -> None:
        """Sign and put. Orders hold no clock and no chance: putting one again changes nothing."""
        place = _order_key(order.site, order.run_id, order.seq)
        self._create(place, envelope.seal(_order_payload(order), key))

    def order(self, site: str, run_id: str, seq: int, key: Ed25519PublicKey) -> Received:
        """The order at this place. Raises NotFound; OrderRefused if forged or of another place."""
        data = self._store.get(_order_key(site, run_id, seq), max_bytes=1 << 20)
        payload = envelope.unseal(data, key)
        try:
            order = _ORDER.validate_json(payload, strict=True)
        except ValidationError as error:
            raise OrderRefused("the order has fields that this client does not know") from error
        if order.site != site:
            raise OrderRefused(f"the order is for site {order.site!r}, and this is {site!r}")
        if (order.run_id, order.seq) != (run_id, seq):
            raise OrderRefused(
                f"the order is number {order.seq} of run {order.run_id!r}, replayed as number "
                f"{seq} of run {run_id!r}"
            )
        return Received(order, blobs.digest(payload))

    def has_order(self, site: str, run_id: str, seq: int) -> bool:
        return self._store.exists(_order_key(site, run_id, seq))

    def put_relay(self, relay: Relay, key: Ed25519PrivateKey) -> int:
        """Sign and put what the server passes on; putting the same again changes nothing.

        Returns its size in bytes.
        """
        payload = json.dumps(_plain(asdict(relay)), sort_keys=True).encode()
        place = _order_key(relay.site, relay.run_id, relay.seq, relay.step)
        sealed = envelope.seal(payload, key)
        self._create(place, sealed)
        return len(sealed)

    def relay(
        self, order: Order, order_digest: str, step: Step, key: Ed25519PublicKey
    ) -> Relay | None:
        """What was passed on as ``step`` of this order; None as long as there is nothing.

        ``order_digest``: of the order as it was received. Raises OrderRefused if what is there is
        forged, or belongs to another order.
        """
        place = _order_key(order.site, order.run_id, order.seq, step)
        try:
            data = self._store.get(place, max_bytes=_MAX_RELAY)
        except NotFound:
            return None
        try:
            relay = _RELAY.validate_json(envelope.unseal(data, key), strict=True)
        except ValidationError as error:
            raise OrderRefused(f"what was passed on as {step!r} is malformed") from error
        wanted = (order.site, order.run_id, order.seq, order_digest, step)
        if (relay.site, relay.run_id, relay.seq, relay.order_digest, relay.step) != wanted:
            raise OrderRefused(f"what was passed on as {step!r} belongs to another order")
        return relay

    def put_attachment(self, relay: Relay, arrays: Mapping[str, Any]) -> int:
        """The arrays that belong to what is passed on; put them before the relay itself.

        Returns their size in bytes.
        """
        place = _order_key(relay.site, relay.run_id, relay.seq, relay.step)
        data = blobs.pack(arrays)
        self._store.create(f"{place}.safetensors", data)
        return len(data)

    def attachment(self, site: str, run_id: str, seq: int, step: Step) -> dict[str, Any]:
        """Those arrays, which nobody signed. Raises NotFound; BlobError."""
        place = _order_key(site, run_id, seq, step)
        return blobs.unpack(self._store.get(f"{place}.safetensors"))[0]

    # replies

    def put_reply(self, reply: Reply, identity: Ed25519PrivateKey | None = None) -> int:
        """Put once; a reply that is there already stays. Returns its size in bytes."""
        parcel = pack_reply(reply)
        parcel = parcel if identity is None else parcel.signed(identity)
        self.put_parcel(parcel)
        return len(parcel.data)

    def put_parcel(self, parcel: Parcel) -> bool:
        """Put what pack_reply made. False if something is there already, which stays."""
        return self._store.create(parcel.key, parcel.data)

    def has_parcel(self, key: str) -> bool:
        return self._store.exists(key)

    def has_reply(self, site: str, run_id: str, seq: int, step: Step | None = None) -> bool:
        return self._store.exists(_reply_key(site, run_id, seq, step))

    def reply(
        self, order: Order, *, step: Step | None = None, max_bytes: int | None = None
    ) -> tuple[Reply, int]:
        """The reply to ``order``, or to a step of it, and its size.

        Raises NotFound, or UpdateRejected that says why: among others, if it is not signed by an
        identity of the site, where the roll lists any, or if another order was answered.
        """
        key = _reply_key(order.site, order.run_id, order.seq, step)
        try:
            data = self._store.get(key, max_bytes=max_bytes)
            reply = _read_reply(open_reply(data, order.site, self._roll), max_bytes)
        except BlobError as error:
            raise UpdateRejected(f"site {order.site}: {error}") from error
        if (reply.site, reply.run_id, reply.seq) != (order.site, order.run_id, order.seq):
            raise UpdateRejected(f"site {order.site}: the reply is to another order")
        unread = isinstance(reply, Refusal) and not reply.order_digest  # what came was no order
        if reply.order_digest != order_digest(order) and not unread:
            raise UpdateRejected(
                f"site {order.site}: the reply is to another order of this number; was the "
                "exchange emptied while the run went on?"
            )
        return reply, len(data)

    # the server's own records

    def create_record(self, run_id: str, name: str, value: Any) -> bool:
        """Write ``value`` (a JSON value or a dataclass) once. False if ``name`` was there."""
        data = json.dumps(_plain(value), sort_keys=True, indent=1).encode()
        return self._store.create(f"records/{run_id}/{name}.json", data)

    def record(self, run_id: str, name: str, kind: type[RecordT]) -> RecordT | None:
        """The record ``name`` as ``kind``, or None if it was never written."""
        try:
            data = self._store.get(f"records/{run_id}/{name}.json")
        except NotFound:
            return None
        return TypeAdapter(kind).validate_json(data)

    def create_state(self, run_id: str, name: str, arrays: Mapping[str, Any]) -> bool:
        """Write a blob of the server's state once. False if it was there."""
        return self._store.create(f"records/{run_id}/{name}.safetensors", blobs.pack(arrays))

    def state(self, run_id: str, name: str) -> dict[str, Any] | None:
        """The blob ``name`` of the server's state, or None."""
        try:
            return blobs.unpack(self._store.get(f"records/{run_id}/{name}.safetensors"))[0]
        except NotFound:
            return None

    def runs(self) -> list[str]:
        """The ids of the runs that were ever opened."""
        suffix = "/run.json"
        keys = (key for key in self._store.list("records/") if key.endswith(suffix))
        return [key.split("/")[1] for key in keys if key.count("/") == 2]

    def _create(self, key: str, data: bytes) -> None:
        if not self._store.create(key, data) and self._store.get(key) != data:
            raise Conflict(f"{key} is in the exchange already, with other content")


def _header_model(kind: type[Reply]) -> type[BaseModel]:
    """What the header of such a reply must hold: every field but the arrays."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind) if f.name != _ARRAYS.get(kind.__name__)]
    model: type[BaseModel] = create_model(
        kind.__name__,
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        **{name: (hints[name], ...) for name in names},
    )  # type: ignore[call-overload]
    return model


_HEADERS = {name: _header_model(kind) for name, kind in _REPLIES.items()}


def pack_reply(reply: Reply, *, compress: bool = False) -> Parcel:
    """The reply as it is put, unsigned, and where. Nothing leaves by this."""
    kind = type(reply).__name__
    array_field = _ARRAYS.get(kind)
    header = {
        f.name: _plain(getattr(reply, f.name)) for f in fields(reply) if f.name != array_field
    }
    arrays = getattr(reply, array_field) if array_field else {}
    data = blobs.pack(arrays, {"kind": kind, "fields": header}, compress=compress)
    key = _reply_key(reply.site, reply.run_id, reply.seq, getattr(reply, "step", None))
    said = {name: value for name, value in header.items() if name != "measurements"}
    content = json.dumps([kind, said, blobs.digest_of(arrays)], sort_keys=True).encode()
    return Parcel(key, data, blobs.digest(content))


def order_digest(order: Order) -> str:
    """What names the order as the server puts it."""
    return blobs.digest(_order_payload(order))


def _order_payload(order: Order) -> bytes:
    """What of an order is signed, and named by its digest."""
    return json.dumps(asdict(order), sort_keys=True).encode()


def _read_reply(data: bytes | memoryview, max_bytes: int | None) -> Reply:
    arrays, header = blobs.unpack(data, max_bytes)
    name = str(header.get("kind"))
    if name not in _REPLIES:
        raise BlobError(f"the reply's header names the unknown kind {name[:40]!r}")
    text = json.dumps(header.get("fields"))
    json.loads(text, parse_int=_check_size, parse_float=_check_size)
    try:
        parsed = _HEADERS[name].model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BlobError(f"the reply's header is wrong at {where!r}: {fault['msg']}") from error
    values = {field: getattr(parsed, field) for field in type(parsed).model_fields}
    if name in _ARRAYS:
        values[_ARRAYS[name]] = arrays
    return _REPLIES[name](**values)


def _check_size(number: str) -> None:
    """Beyond 2^53 nothing is counted, and int and float go different ways."""
    if not abs(float(number)) <= 2**53:
        raise BlobError(f"the reply's header holds the number {number[:20]}, which counts nothing")


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries and NumPy scalars as Python's, all the way down."""
    return json.loads(TypeAdapter(Any).dump_json(value, fallback=_number))


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _params_key(run_id: str, round_num: int) -> str:
    return f"params/{run_id}/{round_num:05d}.safetensors"


def _change_key(run_id: str, round_num: int) -> str:
    return f"params/{run_id}/{round_num:05d}.change.safetensors"


def _bytes_of(params: Params) -> bytes:
    return b"".join(np.ascontiguousarray(params[name], "<f4").data for name in sorted(params))


def _onnx_key(run_id: str) -> str:
    return f"params/{run_id}/model.onnx"


def _order_key(site: str, run_id: str, seq: int, step: Step | None = None) -> str:
    return f"orders/{site}/{run_id}/{_number_of(seq, step)}.json"


def _reply_key(site: str, run_id: str, seq: int, step: Step | None = None) -> str:
    return f"replies/{site}/{run_id}/{_number_of(seq, step)}.safetensors"


def _number_of(seq: int, step: Step | None) -> str:
    return f"{seq:06d}" if step is None else f"{seq:06d}.{step}"
