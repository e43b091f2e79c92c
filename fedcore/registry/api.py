"""The registry: released versions of a model, and which of them is champion.

    models/<name>/<version>/model.onnx             what is served
    models/<name>/<version>/params.safetensors     what it was exported from
    models/<name>/<version>/card.md                the manifest, for people
    models/<name>/<version>/manifest.json          written last: without it there is no version
    models/<name>/champion.json                    the pointer, replaced conditionally

Versions are written once. Whoever creates ``model.onnx`` of a free version holds it, so that two
registrations never mix their files; what a killed one left behind stays invisible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedcore.errors import BlobError, Conflict, NotFound, ReleaseError
from fedcore.params import FloatArray, Params, digest
from fedcore.registry.card import model_card
from fedcore.registry.manifest import Manifest
from fedcore.store import blobs
from fedcore.store.api import Store

TOLERANCE = 1e-4
"""Largest difference of a probability between PyTorch and an export that may be promoted."""

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Step:
    """One move of the champion pointer, and the version it led to."""

    action: Literal["promote", "rollback"]
    version: int


@dataclass(frozen=True)
class Champion:
    """The champion and every step that led to it, oldest first."""

    version: int
    history: tuple[Step, ...]

    @property
    def previous(self) -> int | None:
        """The version that a rollback leads to.

        >>> steps = (Step("promote", 1), Step("promote", 2), Step("rollback", 1))
        >>> Champion(2, steps[:2]).previous, Champion(1, steps).previous
        (1, None)
        """
        line: list[int] = []
        for step in self.history:
            if step.action == "promote":
                line.append(step.version)
            else:
                line = line[:-1]
        return line[-2] if len(line) > 1 else None


@dataclass(frozen=True)
class Release:
    """A version whose files are what its manifest says."""

    manifest: Manifest
    model: bytes = field(repr=False)
    params: Mapping[str, FloatArray] = field(repr=False)


class Registry:
    """The versions of one model. Holds no state of its own."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._root = f"models/{name}/"

    def register(
        self, *, model: bytes, params: Params, run_id: str, created: str, plan_digest: str,
        plan: Mapping[str, Any], onnx_max_abs_diff: float | None, verdict: Mapping[str, Any],
        metrics: Mapping[str, Any], privacy: Mapping[str, Any],
        participants: Mapping[str, Mapping[str, Any]], fedcore_version: str,
    ) -> int:  # fmt: skip
        """Add a version and return its number; the same run again gives the same number.

        ``created``: ISO 8601 in UTC. Raises Conflict if the run is registered with other params.
        """
        params_digest, blob, known = digest(params), blobs.pack(params), self.list()
        for manifest in known:
            if manifest.run_id == run_id:
                return _same(manifest, params_digest)
        version = known[-1].version if known else 0
        while True:
            version += 1
            manifest = Manifest(
                name=self._name, version=version, run_id=run_id, created=created,
                plan_digest=plan_digest, plan=plan, params_digest=params_digest,
                onnx_digest=blobs.digest(model), onnx_max_abs_diff=onnx_max_abs_diff,
                verdict=verdict, metrics=metrics, privacy=privacy, participants=participants,
                fedcore_version=fedcore_version,
            )  # fmt: skip
            held = self._hold(version, "model.onnx", model)
            if held and self._hold(version, "params.safetensors", blob):
                there = self._commit(manifest)
                if there.run_id == run_id:
                    return _same(there, params_digest)

    def promote(self, version: int) -> None:
        """Make ``version`` champion; nothing changes if it is.

        Raises NotFound; ReleaseError if it did not pass its gate or its export deviates; Conflict,
        naming the winner, if another writer moved the pointer meanwhile.
        """
        _require_releasable(self.show(version))
        old = self._pointer()
        if old is not None and old[0].version == version:
            return
        history = old[0].history if old is not None else ()
        self._move(old, Champion(version, (*history, Step("promote", version))))

    def rollback(self) -> int:
        """Make the champion before this one champion again, and return its version.

        Raises NotFound if there is none; Conflict as ``promote`` does.
        """
        old = self._pointer()
        version = old[0].previous if old is not None else None
        if old is None or version is None:
            raise NotFound(f"model {self._name!r} has no earlier champion to go back to")
        self._move(old, Champion(version, (*old[0].history, Step("rollback", version))))
        return version

    def champion(self) -> int | None:
        """The version that is champion, or None."""
        pointer = self._pointer()
        return pointer[0].version if pointer is not None else None

    def list(self) -> tuple[Manifest, ...]:
        """The manifests of all versions, in order."""
        pattern = re.compile(re.escape(self._root) + r"([1-9][0-9]*)/manifest\.json")
        found = (pattern.fullmatch(key) for key in self._store.list(self._root))
        return tuple(self.show(n) for n in sorted(int(match[1]) for match in found if match))

    def show(self, version: int | Literal["champion"]) -> Manifest:
        """One version's manifest. Raises NotFound; BlobError if it is not that version's."""
        number = self.champion() if version == "champion" else version
        if number is None:
            raise NotFound(f"model {self._name!r} has no champion; promote a version that passed")
        key = self._key(number, "manifest.json")
        try:
            manifest = _read(Manifest, self._store.get(key), key)
        except NotFound:
            raise NotFound(
                f"model {self._name!r} has no version {number}; `fedcore models list {self._name}` "
                "shows those it has"
            ) from None
        if (manifest.name, manifest.version) != (self._name, number):
            raise BlobError(f"{key} is of {manifest.name!r} version {manifest.version}: tampered")
        return manifest

    def load(self, version: int | Literal["champion"]) -> Release:
        """A version's files. Raises NotFound; BlobError if one is not what the manifest says."""
        manifest = self.show(version)
        model_key = self._key(manifest.version, "model.onnx")
        params_key = self._key(manifest.version, "params.safetensors")
        model = self._file(model_key)
        params, _ = blobs.unpack(self._file(params_key))
        for key, found, wanted in (
            (model_key, blobs.digest(model), manifest.onnx_digest),
            (params_key, digest(params), manifest.params_digest),
        ):
            if found != wanted:
                raise BlobError(
                    f"{key} has digest {found[:12]}…, its manifest says {wanted[:12]}…: it was "
                    "changed after registration; do not use it, roll back or register again"
                )
        return Release(manifest, model, params)

    def _key(self, version: int, file: str) -> str:
        return f"{self._root}{version}/{file}"

    def _file(self, key: str) -> bytes:
        try:
            return self._store.get(key)
        except NotFound:
            raise BlobError(f"{key} is gone, though its manifest is there") from None

    def _hold(self, version: int, file: str, data: bytes) -> bool:
        """Whether the file of this version is ``data``, written now or by a killed attempt."""
        key = self._key(version, file)
        return self._store.create(key, data) or self._store.get(key) == data

    def _commit(self, manifest: Manifest) -> Manifest:
        """Make the version visible. Returns what is there now, this manifest or another's."""
        self._store.put(self._key(manifest.version, "card.md"), model_card(manifest).encode())
        data = TypeAdapter(Manifest).dump_json(manifest, indent=1)
        self._store.create(self._key(manifest.version, "manifest.json"), data)
        return self.show(manifest.version)

    def _pointer(self) -> tuple[Champion, str] | None:
        """The champion and the version (ETag) of the object that says so."""
        key = f"{self._root}champion.json"
        try:
            data, etag = self._store.get_versioned(key)
        except NotFound:
            return None
        return _read(Champion, data, key), etag

    def _move(self, old: tuple[Champion, str] | None, new: Champion) -> None:
        key, data = f"{self._root}champion.json", TypeAdapter(Champion).dump_json(new, indent=1)
        moved = (
            self._store.create(key, data) if old is None else self._store.replace(key, data, old[1])
        )
        if moved:
            return
        winner = self._pointer()
        # A write whose answer was lost is tried again by the store, and then finds itself.
        if winner is None or winner[0] != new:
            name = f"version {winner[0].version}" if winner is not None else "nobody"
            raise Conflict(
                f"version {new.version} did not become champion of {self._name!r}: meanwhile "
                f"{name} did; look at it, and try again if this one is still wanted"
            )


def _same(manifest: Manifest, params_digest: str) -> int:
    """The version that this run has already. Raises Conflict if its params are others."""
    if manifest.params_digest != params_digest:
        raise Conflict(
            f"run {manifest.run_id!r} is registered as version {manifest.version} of "
            f"{manifest.name!r} with params {manifest.params_digest[:12]}…, not "
            f"{params_digest[:12]}…: give another run another run_id"
        )
    return manifest.version


def _require_releasable(manifest: Manifest) -> None:
    which = f"version {manifest.version} of {manifest.name!r}"
    if manifest.verdict.get("passed") is not True:
        reasons = "; ".join(map(str, manifest.verdict.get("reasons") or ["no verdict that passed"]))
        raise ReleaseError(f"{which} must not be promoted: {reasons}")
    difference = manifest.onnx_max_abs_diff
    if difference is None:
        raise ReleaseError(f"{which} must not be promoted: its ONNX export was never compared")
    if not difference <= TOLERANCE:  # NaN fails too
        raise ReleaseError(
            f"{which} must not be promoted: its ONNX export deviates from PyTorch by "
            f"{difference:.2g}; {TOLERANCE:g} is allowed"
        )


def _read(kind: type[_Kind], data: bytes, key: str) -> _Kind:
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "its beginning"
        raise BlobError(f"{key} cannot be read at {where}: {fault['msg']}") from error
