"""The objects of the stand-in: versions, finalizers, labels and the events that watches read."""

from __future__ import annotations

import json
import queue
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kube_status import NAMESPACES, Resource, already_exists, expired, not_found, other_uid

Object = dict[str, Any]
Change = Callable[[Object], None]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


def now() -> str:
    """The time as Kubernetes writes it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def copy(obj: Object) -> Object:
    """A deep copy of a JSON object, faster than ``deepcopy``."""
    copied: Object = json.loads(json.dumps(obj))
    return copied


@dataclass(frozen=True)
class Event:
    """A change as a watch sees it."""

    kind: str  # ADDED, MODIFIED or DELETED
    resource: Resource
    object: Object

    @property
    def version(self) -> int:
        """The resourceVersion that this change made."""
        return int(self.object["metadata"]["resourceVersion"])


Errors = list[BaseException]
"""What the stand-in itself fell over; empty, or a test should know."""
Events = queue.SimpleQueue[Event | BaseException | None]


@dataclass(eq=False)
class Subscription:
    """One reader of events: of one resource, in one namespace (empty: in all)."""

    resource: Resource
    namespace: str
    events: Events
    """``None`` ends the stream in good order; an exception is for the reader to raise."""

    def wants(self, event: Event) -> bool:
        """Whether the event is for this reader."""
        return event.resource is self.resource and self.namespace in (
            "", event.object["metadata"].get("namespace", ""),
        )  # fmt: skip


class Store:
    """Every object, and the last ``history`` events. A stored object is never changed in place."""

    def __init__(self, history: int = 2000) -> None:
        self._lock = threading.RLock()
        self._objects: dict[tuple[str, str], dict[str, Object]] = {}  # by resource and namespace
        self._events: deque[Event] = deque(maxlen=history)
        self._readers: dict[tuple[str, str], set[Subscription]] = {}
        self._version = 1000
        self._oldest = self._version

    @property
    def version(self) -> int:
        """The newest resourceVersion; every event up to it has reached its readers."""
        with self._lock:
            return self._version

    @property
    def oldest(self) -> int:
        """The oldest resourceVersion from which a watch can still start."""
        return self._oldest

    def create(self, resource: Resource, obj: Object) -> Object:
        """Add it, with uid and times. Raises ApiError: no such namespace, or already there."""
        obj = copy(obj)
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        with self._lock:
            if resource is not NAMESPACES:
                self.check_namespace(namespace)
            if self.find(resource, namespace, name) is not None:
                raise already_exists(resource, name)
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", now())
            obj |= {"kind": resource.kind, "apiVersion": resource.api_version}
            self._objects.setdefault((resource.plural, namespace), {})[name] = obj
            self._emit("ADDED", resource, obj)
            return obj

    def check_namespace(self, namespace: str) -> None:
        """Raises ApiError 404 if there is no such namespace."""
        self.get(NAMESPACES, "", namespace)

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None. Not to be changed."""
        with self._lock:
            return self._objects.get((resource.plural, namespace), {}).get(name)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """The object; raises ApiError 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        """All of a namespace (empty: of all), by namespace and name."""
        with self._lock:
            places = [(resource.plural, namespace)]
            if not namespace:
                places = sorted(place for place in self._objects if place[0] == resource.plural)
            found = [sorted(self._objects.get(place, {}).items()) for place in places]
            return [obj for objects in found for _, obj in objects]

    def update(
        self, resource: Resource, namespace: str, name: str, change: Change
    ) -> Object | None:
        """Apply ``change`` to a copy and store that; None if there is no such object.

        An object that is being deleted goes when nothing holds it any more.
        """
        with self._lock:
            old = self.find(resource, namespace, name)
            if old is None:
                return None
            objects, obj = self._objects[resource.plural, namespace], copy(old)
            change(obj)
            meta = obj["metadata"]
            held = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
            if "deletionTimestamp" in meta and not held:
                del objects[name]
                self._emit("DELETED", resource, obj)
            elif obj != old:
                objects[name] = obj
                self._emit("MODIFIED", resource, obj)
            return obj

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        grace: int = 0,
        finalizer: str | None = None,
        uid: str | None = None,
    ) -> Object:
        """Mark for deletion; gone at once if neither grace nor a finalizer holds it."""

        def mark(obj: Object) -> None:
            meta = obj["metadata"]
            if uid is not None and uid != meta["uid"]:
                raise other_uid(resource, name, uid, meta["uid"])
            if "deletionTimestamp" not in meta:
                meta |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace}
                if finalizer is not None:
                    meta["finalizers"] = [*meta.get("finalizers", []), finalizer]
            elif grace < meta.get("deletionGracePeriodSeconds", 0):
                meta["deletionGracePeriodSeconds"] = grace

        deleted = self.update(resource, namespace, name, mark)
        if deleted is None:
            raise not_found(resource, name)
        return deleted

    def watch(
        self,
        resource: Resource,
        namespace: str,
        since: int | None,
        events: Events | None = None,
    ) -> Subscription:
        """Read the events after version ``since``; None: first what there is now, as ADDED.

        Raises ApiError 410 if events after ``since`` are forgotten.
        """
        reader = Subscription(resource, namespace, events or queue.SimpleQueue())
        with self._lock:
            if since is None:
                past: Iterator[Event] = (
                    Event("ADDED", resource, obj) for obj in self.list(resource, namespace)
                )
            elif since < self._oldest:
                raise expired(since, self._oldest)
            else:
                past = (e for e in self._events if e.version > since and reader.wants(e))
            for event in past:
                reader.events.put(event)
            self._readers.setdefault((resource.plural, namespace), set()).add(reader)
        return reader

    def unwatch(self, reader: Subscription) -> None:
        """Send it no more."""
        with self._lock:
            self._readers[reader.resource.plural, reader.namespace].discard(reader)

    def compact(self) -> None:
        """Forget every event: a watch from any earlier version is too old (410)."""
        with self._lock:
            self._events.clear()
            self._version += 1
            self._oldest = self._version

    def _emit(self, kind: str, resource: Resource, obj: Object) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        event = Event(kind, resource, obj)
        if len(self._events) == self._events.maxlen:
            self._oldest = self._events[0].version
        self._events.append(event)
        for namespace in {"", obj["metadata"].get("namespace", "")}:
            for reader in self._readers.get((resource.plural, namespace), ()):
                reader.events.put(event)


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector (``a=b,c!=d,e in (f,g),h,!i``) matches.

    >>> selects("app=client,round in (1,2),!old", {"app": "client", "round": "2"})
    True
    """
    terms = re.split(r",(?![^(]*\))", selector) if selector.strip() else []
    return all(_term(term.strip(), labels) for term in terms)


def _term(term: str, labels: dict[str, str]) -> bool:
    if match := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", term):
        key, operator, values = match.groups()
        within = labels.get(key) in [value.strip() for value in values.split(",")]
        return within if operator == "in" else not within
    if match := re.fullmatch(r"([^!=\s]+)\s*(==|=|!=)\s*(\S*)", term):
        key, operator, value = match.groups()
        return (labels.get(key) == value) != (operator == "!=")
    return term[1:].strip() not in labels if term.startswith("!") else term in labels


def picks(selector: str, obj: Object) -> bool:
    """Whether a field selector (``metadata.name=x,status.phase!=Running``) matches."""
    for term in filter(None, selector.split(",")):
        path, operator, value = re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", term).groups()  # type: ignore[union-attr]
        found: Any = obj
        for part in path.split("."):
            found = (found or {}).get(part)
        if (str(found or "") == value) == (operator == "!="):
            return False
    return True
