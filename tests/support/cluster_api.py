"""A real cluster as one caller sees it: plain dictionaries in and out, and waits that end."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from ruamel.yaml import YAML

Object = dict[str, Any]
T = TypeVar("T")

API_VERSIONS = {
    "ConfigMap": "v1",
    "Job": "batch/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Namespace": "v1",
    "Node": "v1",
    "Pod": "v1",
    "ResourceQuota": "v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "SelfSubjectAccessReview": "authorization.k8s.io/v1",
    "SelfSubjectRulesReview": "authorization.k8s.io/v1",
    "ValidatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io/v1",
}
_NEVER_COMPARED = {"Event", "PodMetrics", "ComponentStatus"}


def wait_for(what: str, look: Callable[[], T | None], timeout: float = 60.0) -> T:
    """The first answer of ``look`` that is true. Fails with ``what`` after ``timeout`` seconds."""
    give_up = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < give_up, f"not within {timeout:g} s: {what}"
        time.sleep(0.2)
    return found


class Access:
    """The API server, as the caller that ``api`` authenticates."""

    def __init__(self, api: client.ApiClient, cache: Path) -> None:
        self.api = api
        self._cache = cache
        self._dynamic = DynamicClient(api, cache_file=str(cache))

    @classmethod
    def from_kubeconfig(cls, cache: Path) -> Access:
        """As KUBECONFIG says. Raises ConfigException, or urllib3's errors if nobody answers."""
        return cls(config.new_client_from_config(), cache)

    def with_token(self, token: str) -> Access:
        """The same cluster, as the caller whom ``token`` names, and with nothing else of ours."""
        mine, theirs = self.api.configuration, client.Configuration()
        for field in ("host", "ssl_ca_cert", "verify_ssl", "proxy", "no_proxy", "tls_server_name"):
            setattr(theirs, field, getattr(mine, field))
        theirs.api_key = {"authorization": f"Bearer {token}"}
        return Access(client.ApiClient(theirs), self._cache)

    def create(self, found: Object, **query: Any) -> Object:
        """Raises ApiException."""
        resource = self._resource(found["kind"], found["apiVersion"])
        namespace = found["metadata"].get("namespace")
        answer: Object = resource.create(body=found, namespace=namespace, **query).to_dict()
        return answer

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """None if there is none of that name."""
        try:
            found: Object = self._resource(kind).get(name=name, namespace=namespace).to_dict()
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def patch(self, kind: str, name: str, namespace: str, change: Object) -> None:
        """A merge patch. Raises ApiException."""
        self._resource(kind).patch(
            name=name,
            namespace=namespace,
            body=change,
            content_type="application/merge-patch+json",
        )

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        found = self._resource(kind).get(namespace=namespace, label_selector=selector)
        items: list[Object] = found.to_dict()["items"]
        return items

    def delete(
        self, kind: str, name: str, namespace: str | None = None, *, grace: int | None = None
    ) -> None:
        """What is gone already is no error."""
        options = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace  # type: ignore[assignment]
        try:
            self._resource(kind).delete(name=name, namespace=namespace, body=options)
        except ApiException as error:
            if error.status != 404:
                raise

    def may(self, verb: str, resource: str, namespace: str | None = None, group: str = "") -> bool:
        """Whether the API server's authorizer says yes. ``resource`` may be ``pods/log``."""
        resource, _, subresource = resource.partition("/")
        asked = {"verb": verb, "resource": resource, "subresource": subresource, "group": group}
        if namespace is not None:
            asked["namespace"] = namespace
        return bool(
            self._review("SelfSubjectAccessReview", {"resourceAttributes": asked})["allowed"]
        )

    def rules(self, namespace: str) -> set[tuple[str, str, str]]:
        """All that the caller may do there: (verb, group, resource)."""
        status = self._review("SelfSubjectRulesReview", {"namespace": namespace})
        return {
            (verb, group, resource)
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for group in rule.get("apiGroups", [""])
            for resource in rule.get("resources", [])
        }

    def log(self, namespace: str, pod: str) -> str:
        return str(client.CoreV1Api(self.api).read_namespaced_pod_log(pod, namespace))

    def token_of(self, namespace: str, account: str) -> str:
        """A token of that service account, for an hour."""
        body = {"spec": {"expirationSeconds": 3600}}
        core = client.CoreV1Api(self.api)
        return str(
            core.create_namespaced_service_account_token(account, namespace, body).status.token
        )

    def contents(self, namespace: str) -> set[str]:
        """``Kind/name`` of every object there, whatever kinds this cluster has.

        Kinds that cannot be listed now, or not by this caller, are left out.
        """
        found = set()
        for resource in self._dynamic.resources.search(preferred=True):
            listed = resource.namespaced and "list" in (resource.verbs or ())
            if not listed or resource.kind in _NEVER_COMPARED or resource.kind.endswith("List"):
                continue
            with contextlib.suppress(ApiException):
                items = resource.get(namespace=namespace).to_dict()["items"]
                found |= {f"{resource.kind}/{item['metadata']['name']}" for item in items}
        return found

    def _review(self, kind: str, spec: Mapping[str, Any]) -> Object:
        body = {"apiVersion": API_VERSIONS[kind], "kind": kind, "spec": spec}
        status: Object = self._resource(kind).create(body=body).to_dict()["status"]
        return status

    def _resource(self, kind: str, api_version: str | None = None) -> Any:
        return self._dynamic.resources.get(api_version=api_version or API_VERSIONS[kind], kind=kind)


def write_kubeconfig(path: Path, access: Access, token: str) -> Path:
    """A kubeconfig of the same API server, as the caller whom ``token`` names."""
    settings = access.api.configuration
    cluster: Object = {"server": settings.host}
    if settings.ssl_ca_cert:
        authority = Path(settings.ssl_ca_cert).read_bytes()
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    if not settings.verify_ssl:
        cluster["insecure-skip-tls-verify"] = True
    if settings.tls_server_name:
        cluster["tls-server-name"] = settings.tls_server_name
    fields = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.touch(mode=0o600)
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(fields, file)
    return path


def message_of(error: ApiException) -> str:
    """What the API server's Status says."""
    return str(json.loads(error.body)["message"])
