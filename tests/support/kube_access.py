"""Who asks, and what they may do where: bearer tokens and rules as RBAC's, without the objects."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from kube_faults import Request
from kube_status import cannot, forbidden, unauthorized

Rules = Mapping[str, Sequence[str]]
"""Resource (``jobs``, ``pods/log``, or ``*``) → verbs (or ``*``)."""

SERVER: Rules = {
    "jobs": ("create", "get", "list", "watch", "delete"),
    "pods": ("get", "list", "watch"),
    "pods/log": ("get",),
}
"""What fedcore's server may do in a site's namespace, and nothing else."""

ANONYMOUS = "system:anonymous"


class Access:
    """Users by token, and their rules by namespace (``*``: everywhere)."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._rules: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}

    def token(self, user: str) -> str:
        """The user's token, the same at every call."""
        for token, known in self._tokens.items():
            if known == user:
                return token
        token = secrets.token_urlsafe(24)
        self._tokens[token] = user
        return token

    def allow(self, user: str, namespace: str, rules: Rules) -> None:
        """Replace what the user may do there."""
        self._rules[user, namespace] = {path: tuple(verbs) for path, verbs in rules.items()}

    def revoke(self, user: str, namespace: str) -> None:
        """The user may do nothing there any more."""
        self._rules.pop((user, namespace), None)

    def user(self, authorization: str | None) -> str:
        """Who sends this header. Raises ApiError 401 for a token that is nobody's."""
        if not authorization:
            return ANONYMOUS
        user = self._tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise unauthorized()
        return user

    def allows(self, user: str, namespace: str, path: str, verb: str) -> bool:
        """Whether a rule says so. Everybody may ask what they may do."""
        if path == "selfsubjectaccessreviews" and user != ANONYMOUS:
            return True
        for where in (namespace, "*"):
            rules = self._rules.get((user, where), {})
            verbs = (*rules.get(path, ()), *rules.get("*", ()))
            if where and (verb in verbs or "*" in verbs):
                return True
        return False

    def check(self, user: str, request: Request) -> None:
        """Raises ApiError 403 in the authoriser's words."""
        if not self.allows(user, request.namespace, request.path, request.verb):
            resource, namespace = request.resource, request.namespace
            sentence = cannot(user, request.verb, resource, request.subresource, namespace)
            raise forbidden(resource, request.name, sentence)
