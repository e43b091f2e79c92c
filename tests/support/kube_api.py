"""The verbs on the objects: what an authorised request does to the store, and what it gets."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import kube_admit
from kube_access import Access
from kube_faults import Request
from kube_scenarios import Scenarios
from kube_status import (
    JOBS,
    PODS,
    REVIEWS,
    bad_request,
    failure,
    method_not_allowed,
)
from kube_store import FOREGROUND, ORPHAN, Object, Store, copy, now, picks, selects

_PRESERVED = (
    '299 - "child pods are preserved by default when jobs are deleted; set '
    "propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress "
    'this warning"'
)
Query = Mapping[str, str]
ReadLog = Callable[[str, str], bytes | None]
"""(namespace, pod) → what its container has written; None: it has not started."""


@dataclass
class Reply:
    """An answer: JSON, or text."""

    body: Object | bytes
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Api:
    """Answers requests. ``read_log``: where the pods' output is."""

    def __init__(
        self, store: Store, access: Access, scenarios: Scenarios, read_log: ReadLog
    ) -> None:
        self._store, self._access, self._scenarios = store, access, scenarios
        self._read_log = read_log

    def answer(self, user: str, request: Request, query: Query, body: Object) -> Reply:
        """Do it. Raises ApiError."""
        verbs = {
            "get": self._get, "list": self._list, "create": self._create,
            "delete": self._delete, "deletecollection": self._delete_all,
        }  # fmt: skip
        if request.resource is REVIEWS:
            return self._review(user, body)
        if request.verb not in verbs or (request.subresource and request.verb != "get"):
            raise method_not_allowed(request.resource, request.verb)
        return verbs[request.verb](request, query, body)

    def _get(self, request: Request, query: Query, _: Object) -> Reply:
        found = self._store.get(request.resource, request.namespace, request.name)
        return self._log(found, query) if request.subresource == "log" else Reply(found)

    def _log(self, pod: Object, query: Query) -> Reply:
        name, spec = pod["metadata"]["name"], pod["spec"]
        container = query.get("container", spec["containers"][0]["name"])
        if container not in [known["name"] for known in spec["containers"]]:
            raise bad_request(f"container {container} is not valid for pod {name}")
        placed = spec.get("nodeName") is not None
        text = self._read_log(pod["metadata"]["namespace"], name) if placed else b""
        if text is None:
            state = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {})
            waits = _WAITS.get(reason := state.get("waiting", {}).get("reason", ""), reason)
            where = f'container "{container}" in pod "{name}" is waiting to start'
            raise bad_request(f"{where}: {waits}" if waits else f"{where} - no logs yet")
        if "tailLines" in query:
            lines = text.splitlines(keepends=True)
            text = b"".join(lines[max(0, len(lines) - int(query["tailLines"])) :])
        return Reply(text[: int(query.get("limitBytes", len(text)))])

    def _list(self, request: Request, query: Query, _: Object) -> Reply:
        start, version = _continue(query)
        if version and int(version) < self._store.oldest:
            raise _CONTINUED_TOO_LATE
        found = [
            obj
            for obj in self._store.list(request.resource, request.namespace)
            if wanted(obj, query) and _place(obj) > start
        ]
        limit = int(query.get("limit") or 0) or len(found)
        meta = {"resourceVersion": version or str(self._store.version)}
        if len(found) > limit:
            token = {"start": _place(found[limit - 1]), "version": meta["resourceVersion"]}
            meta["continue"] = base64.urlsafe_b64encode(json.dumps(token).encode()).decode()
        items = found[:limit]
        resource = request.resource
        kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return Reply({**kind, "metadata": meta, "items": items})

    def _create(self, request: Request, query: Query, body: Object) -> Reply:
        obj = copy(body)
        meta = obj.setdefault("metadata", {})
        if meta.setdefault("namespace", request.namespace) != request.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        if not meta.get("name"):
            prefix = meta.get("generateName", "")
            meta["name"] = prefix + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        self._store.check_namespace(request.namespace)
        if request.resource is JOBS:
            kube_admit.prepare(obj)
            kube_admit.validate(obj)
            kube_admit.admit(obj, self._scenarios)
        if query.get("dryRun") == "All":
            return Reply({**obj, "metadata": {**meta, "creationTimestamp": now()}}, 201)
        return Reply(self._store.create(request.resource, obj), 201)

    def _delete(self, request: Request, query: Query, body: Object) -> Reply:
        old = self._store.get(request.resource, request.namespace, request.name)
        policy = body.get("propagationPolicy") or query.get("propagationPolicy")
        grace, finalizer, headers = 0, None, {}
        if request.resource is JOBS:
            if policy is None:
                headers["Warning"] = _PRESERVED
            finalizer = {None: ORPHAN, "Orphan": ORPHAN, "Foreground": FOREGROUND}.get(policy)
        elif request.resource is PODS:
            asked = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
            grace = grace_of(old, None if asked is None else int(asked))
        uid = body.get("preconditions", {}).get("uid")
        gone = self._store.delete(
            request.resource, request.namespace, request.name,
            grace=grace, finalizer=finalizer, uid=uid,
        )  # fmt: skip
        if request.resource is PODS or finalizer is not None:
            return Reply(gone, headers=headers)
        meta, resource = gone["metadata"], request.resource
        details = {"name": meta["name"], "group": resource.group, "kind": resource.plural,
                   "uid": meta["uid"]}  # fmt: skip
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return Reply({**status, "details": details}, headers=headers)

    def _delete_all(self, request: Request, query: Query, body: Object) -> Reply:
        reply = self._list(request, {k: v for k, v in query.items() if k != "limit"}, body)
        assert isinstance(reply.body, dict)
        for obj in reply.body["items"]:
            one = Request("delete", request.resource, "", request.namespace,
                          obj["metadata"]["name"])  # fmt: skip
            self._delete(one, query, body)
        return reply

    def _review(self, user: str, body: Object) -> Reply:
        asked = body.get("spec", {}).get("resourceAttributes", {})
        path = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource"))))
        allowed = self._access.allows(user, asked.get("namespace", ""), path, asked.get("verb", ""))
        return Reply({**body, "status": {"allowed": allowed}}, 201)


_WAITS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def wanted(obj: Object, query: Query) -> bool:
    """Whether the query's selectors let the object through."""
    labels = obj["metadata"].get("labels") or {}
    return selects(query.get("labelSelector", ""), labels) and picks(
        query.get("fieldSelector", ""), obj
    )


def grace_of(pod: Object, asked: int | None) -> int:
    """Seconds a pod gets to end: none if it is not placed on a node or has ended already."""
    if not pod["spec"].get("nodeName") or pod["status"]["phase"] in ("Succeeded", "Failed"):
        return 0
    usual: int = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return usual if asked is None else asked


def _place(obj: Object) -> list[str]:
    return [obj["metadata"].get("namespace", ""), obj["metadata"]["name"]]


def _continue(query: Query) -> tuple[list[str], str]:
    if not query.get("continue"):
        return [], ""
    try:
        token: dict[str, Any] = json.loads(base64.urlsafe_b64decode(query["continue"]))
    except ValueError as error:
        raise bad_request("continue key is not valid") from error
    return token["start"], token["version"]


_CONTINUED_TOO_LATE = failure(
    410, "Expired",
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter.",
)  # fmt: skip
