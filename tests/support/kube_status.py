"""What a Kubernetes API server says when it refuses: ``Status`` bodies, word for word.

The texts are those of apimachinery's ``api/errors`` and apiserver's ``responsewriters``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resource:
    """A kind of object: its API group (empty: core), plural name and kind."""

    group: str
    plural: str
    kind: str

    @property
    def qualified(self) -> str:
        """``jobs.batch``, ``pods``: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As in an object's ``apiVersion``."""
        return f"{self.group}/v1" if self.group else "v1"


JOBS = Resource("batch", "jobs", "Job")
PODS = Resource("", "pods", "Pod")
NAMESPACES = Resource("", "namespaces", "Namespace")
CONFIG_MAPS = Resource("", "configmaps", "ConfigMap")
SECRETS = Resource("", "secrets", "Secret")
REVIEWS = Resource("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
RESOURCES = {r.plural: r for r in (JOBS, PODS, NAMESPACES, CONFIG_MAPS, SECRETS, REVIEWS)}


class ApiError(Exception):
    """A request is refused: the ``Status`` to answer with and further HTTP headers."""

    def __init__(self, status: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status["message"])
        self.status = status
        self.headers = dict(headers or {})

    @property
    def code(self) -> int:
        """The HTTP status code."""
        return int(self.status["code"])


def failure(
    code: int,
    reason: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ApiError:
    """A failure with these words."""
    status = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason,
    }  # fmt: skip
    if details:
        status["details"] = dict(details)
    return ApiError({**status, "code": code}, headers)


def _details(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    named = {"name": name} if name else {}
    grouped = {"group": resource.group} if resource.group else {}
    return {**named, **grouped, "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> ApiError:
    """404: no such object; also for a create in a namespace that does not exist."""
    message = f'{resource.qualified} "{name}" not found'
    return failure(404, "NotFound", message, _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """409 to a create."""
    message = f'{resource.qualified} "{name}" already exists'
    return failure(409, "AlreadyExists", message, _details(resource, name))


def other_uid(resource: Resource, name: str, wanted: str, found: str) -> ApiError:
    """409 to a delete whose precondition names another object of that name."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    message = (
        f'Operation cannot be fulfilled on {kind} "{name}": the UID in the precondition '
        f"({wanted}) does not match the UID in record ({found}). The object might have been "
        "deleted and then recreated"
    )
    return failure(409, "Conflict", message, _details(resource, name))


def forbidden(resource: Resource, name: str, why: str, **more: Any) -> ApiError:
    """403, of the authoriser (``why`` from ``cannot``) or of an admission plugin."""
    what = f'{resource.qualified} "{name}"' if name else resource.qualified
    message = f"{what} is forbidden: {why}"
    return failure(403, "Forbidden", message, _details(resource, name, **more))


def cannot(user: str, verb: str, resource: Resource, subresource: str, namespace: str) -> str:
    """The authoriser's sentence."""
    path = f"{resource.plural}/{subresource}" if subresource else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    return f'User "{user}" cannot {verb} resource "{path}" in API group "{resource.group}" {where}'


def unauthorized() -> ApiError:
    """401: a token that nobody knows."""
    return failure(401, "Unauthorized", "Unauthorized")


def invalid(resource: Resource, name: str, faults: Sequence[tuple[str, str, str]]) -> ApiError:
    """422; ``faults``: (reason, field, message) of each."""
    listed = list(dict.fromkeys(f"{field}: {message}" for _, field, message in faults))
    text = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    causes = [{"reason": r, "message": m, "field": f} for r, f, m in faults]
    details = {"name": name, "group": resource.group, "kind": resource.kind, "causes": causes}
    return failure(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details)


def expired(asked: int, oldest: int) -> ApiError:
    """410: a resourceVersion whose events are forgotten."""
    return failure(410, "Expired", f"too old resource version: {asked} ({oldest})")


def bad_request(message: str) -> ApiError:
    """400."""
    return failure(400, "BadRequest", message)


def method_not_allowed(resource: Resource, action: str) -> ApiError:
    """405."""
    message = f'{action} is not supported on resources of kind "{resource.qualified}"'
    return failure(405, "MethodNotAllowed", message, _details(resource, ""))


def of_code(code: int, retry_after: int | None = None) -> ApiError:
    """What a server (or what stands before it) answers with this code, out of the blue."""
    reason, message = _WORDS.get(code, ("InternalError", f"Internal error occurred: {code}"))
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    details = {"retryAfterSeconds": retry_after} if retry_after is not None else None
    return failure(code, reason, message, details, headers)


_WORDS = {
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden: not yet authorized, the RBAC cache is being filled"),
    404: ("NotFound", "the server could not find the requested resource"),
    409: ("Conflict", "Operation cannot be fulfilled: the object has been modified"),
    410: ("Expired", "The resourceVersion for the provided list is too old."),
    429: ("TooManyRequests", "Too many requests, please try again later."),
    500: ("InternalError", "Internal error occurred: etcdserver: leader changed"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}
