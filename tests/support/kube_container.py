"""A container as a runner gets it: command, environment and folders, resolved from the pod."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kube_status import CONFIG_MAPS, SECRETS, Resource
from kube_store import Object, Store


class NotYet(Exception):
    """The container waits: the reason (``CreateContainerConfigError`` …) and why."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class StartError(Exception):
    """The container's program cannot be started; says why. There is no log then."""


@dataclass(eq=False)
class Container:
    """The one container of a pod, about to run.

    ``env`` is what the Job says, keys of ConfigMaps and Secrets filled in. ``mounts``: path in
    the container → folder on this machine. ``stopping``: it has got SIGTERM or SIGKILL, and a
    runner ends soon; ``killed``: SIGKILL.
    """

    namespace: str
    pod: str
    labels: Mapping[str, str]
    command: list[str]
    env: dict[str, str]
    mounts: dict[str, Path]
    workdir: str
    folder: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)

    @property
    def log(self) -> Path:
        """The file that ``kubectl logs`` reads."""
        return self.folder / "log"

    def kill(self) -> None:
        """SIGKILL."""
        self.killed.set()
        self.stopping.set()

    def write(self, text: str) -> None:
        """Add to the log."""
        with self.log.open("a") as file:
            file.write(text)

    def here(self, value: str) -> str:
        """``value`` with paths in the container replaced by those of the folders.

        Also inside a value, e.g. ``"ca_bundle": "/etc/fedcore/ca.pem"`` in JSON.
        """
        for path, folder in sorted(self.mounts.items(), reverse=True):
            value = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", str(folder), value)
        return value


Runner = Callable[[Container], int]
"""Runs a container until it ends and gives its exit code. Raises StartError."""


def container(pod: Object, store: Store, folder: Path) -> Container:
    """Resolve the pod's only container. Raises NotYet in the kubelet's words."""
    spec, meta = pod["spec"]["containers"][0], pod["metadata"]
    return Container(
        namespace=meta["namespace"],
        pod=meta["name"],
        labels=meta.get("labels", {}),
        command=[*spec.get("command", ()), *spec.get("args", ())],
        env=_environment(spec, meta, store),
        mounts=_mounts(pod, spec, store, folder),
        workdir=spec.get("workingDir", "/"),
        folder=folder,
    )


def _environment(spec: Object, meta: Object, store: Store) -> dict[str, str]:
    found = {}
    for entry in spec.get("env", ()):
        source = entry.get("valueFrom")
        if not source:
            found[entry["name"]] = str(entry.get("value", ""))
        elif "fieldRef" in source:
            found[entry["name"]] = meta[source["fieldRef"]["fieldPath"].removeprefix("metadata.")]
        else:
            value = _key(source, meta["namespace"], store)
            if value is not None:
                found[entry["name"]] = value
    return found


def _key(source: dict[str, Any], namespace: str, store: Store) -> str | None:
    secret = "secretKeyRef" in source
    ref = source["secretKeyRef" if secret else "configMapKeyRef"]
    kind, title = (SECRETS, "Secret") if secret else (CONFIG_MAPS, "ConfigMap")
    data, optional = data_of(store, kind, namespace, ref["name"]), ref.get("optional", False)
    if data is None:
        if optional:
            return None
        word = "secret" if secret else "configmap"
        raise NotYet("CreateContainerConfigError", f'{word} "{ref["name"]}" not found')
    if ref["key"] not in data:
        if optional:
            return None
        where = f"{title} {namespace}/{ref['name']}"
        raise NotYet("CreateContainerConfigError", f"couldn't find key {ref['key']} in {where}")
    return data[ref["key"]].decode()


def _mounts(pod: Object, spec: Object, store: Store, folder: Path) -> dict[str, Path]:
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    namespace = pod["metadata"]["namespace"]
    mounts = {}
    for mount in spec.get("volumeMounts", ()):
        place = folder / "volumes" / mount["name"]
        _fill(place, volumes[mount["name"]], namespace, store)
        mounts[mount["mountPath"]] = place
    return mounts


def _fill(place: Path, volume: Object, namespace: str, store: Store) -> None:
    """Make the volume's folder. A missing ConfigMap keeps the container in ContainerCreating."""
    place.mkdir(parents=True, exist_ok=True)
    if "emptyDir" in volume:
        return
    if "configMap" in volume:
        kind, source, name = CONFIG_MAPS, volume["configMap"], volume["configMap"]["name"]
    elif "secret" in volume:
        kind, source, name = SECRETS, volume["secret"], volume["secret"]["secretName"]
    else:
        raise NotYet("CreateContainerError", f"the stand-in knows no such volume: {volume}")
    data = data_of(store, kind, namespace, name)
    if data is None and not source.get("optional"):
        raise NotYet("ContainerCreating")
    items = {item["key"]: item["path"] for item in source.get("items", ())}
    for key, content in (data or {}).items():
        if not items or key in items:
            path = place / items.get(key, key)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)


def data_of(store: Store, kind: Resource, namespace: str, name: str) -> dict[str, bytes] | None:
    """A ConfigMap's or Secret's keys and values; None if there is none of that name."""
    found = store.find(kind, namespace, name)
    if found is None:
        return None
    data = found.get("data") or {}
    if kind is SECRETS:
        return {key: base64.b64decode(value) for key, value in data.items()}
    return {key: value.encode() for key, value in data.items()}
