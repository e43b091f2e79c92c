"""Sites on a real cluster: the chart in a namespace, and what the hospital hands to the server."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python as helm
from charts import SITE
from cluster_api import Access, Object, wait_for, write_kubeconfig
from kubernetes.client.exceptions import ApiException

from fedcore.config import yaml
from fedcore.config.job import JobSettings, KubernetesSite

Values = dict[str, Any]

SESSION_LABEL = "fedcore.io/test-session"
NO_IMAGE = "registry.invalid/fedcore-client@sha256:" + "0" * 64
"""Named where no pod has to run."""
NO_GPU = "fedcore.test/gpu"
"""A resource that no node has."""


class Namespaces:
    """Makes namespaces of this test session, and removes them all."""

    def __init__(self, admin: Access, session: str) -> None:
        self._admin = admin
        self._session = session
        self._made: list[str] = []
        self._control = ""

    def make(self, name: str, level: str | None = "restricted") -> str:
        """``level``: of Pod Security that it enforces; None = it says nothing."""
        name = f"{self._session}-{name}"
        labels = {SESSION_LABEL: self._session}
        if level is not None:
            labels["pod-security.kubernetes.io/enforce"] = level
        self._made.append(name)
        self._admin.create(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        wait_for(
            f"namespace {name} has its account and authority",
            lambda: (
                self._admin.get("ServiceAccount", "default", name)
                and self._admin.get("ConfigMap", "kube-root-ca.crt", name)
            ),
        )
        return name

    def left_in(self, namespace: str, before: set[str]) -> set[str]:
        """What is in a namespace of ours, less what was, and what a cluster puts into each."""
        if not self._control:
            self._control = self.make("control")
        return self._admin.contents(namespace) - before - self._admin.contents(self._control)

    def remove_all(self) -> None:
        """Returns when they are gone. A policy that a failed test left goes as well."""
        for name in self._made:
            for kind in ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"):
                with contextlib.suppress(ApiException):  # where we may not make them, none is left
                    self._admin.delete(kind, f"fedcore-jobs.{name}")
            self._admin.delete("Namespace", name)
        for name in self._made:
            wait_for(f"{name} is gone", lambda n=name: not self._admin.get("Namespace", n), 180)  # type: ignore[misc]


@dataclass(frozen=True)
class Site:
    """A site whose chart is installed as release ``name``."""

    name: str
    namespace: str
    values: Values
    job: JobSettings
    """As the chart wrote them down for whoever makes the Jobs."""
    kubeconfig: Path | None
    """What the site hands to the coordinator: the token of the account that the chart made."""

    def place(self, **job: Any) -> KubernetesSite:
        """The site's entry in the federation file; ``job`` changes its settings."""
        settings = JobSettings.model_validate({**self.job.model_dump(), **job})
        return KubernetesSite(namespace=self.namespace, kubeconfig=self.kubeconfig, job=settings)

    @property
    def release(self) -> helm.Config:
        """Helm's engine on the site's namespace."""
        return helm.Config(namespace=self.namespace)


def install(admin: Access, name: str, namespace: str, values: Values, folder: Path) -> Site:
    """Install the site's chart, and return when its rules are in force."""
    with helm.Config(namespace=namespace) as release:
        release.install(SITE, name, values, timeout=120)
    kubeconfig = None
    if values.get("server", {}).get("serviceAccount", {}).get("create"):
        token = wait_for("the server's token", lambda: _token(admin, namespace))
        kubeconfig = write_kubeconfig(folder / f"{namespace}.kubeconfig", admin, token)
    told = admin.get("ConfigMap", "fedcore-client", namespace)
    assert told is not None
    job = yaml.parse(told["data"]["job.yaml"], JobSettings, source="job.yaml")
    return Site(name, namespace, values, job, kubeconfig)


def in_force(server: Access, forbidden: Object) -> None:
    """Wait until the API server applies the policy that it has just been given."""

    def denied() -> bool:
        try:
            server.create(forbidden, dry_run="All")
        except ApiException as error:
            return "ValidatingAdmissionPolicy" in str(error.body)
        return False

    wait_for("the admission policy is in force", denied, 60)


def uninstall(site: Site) -> None:
    with helm.Config(namespace=site.namespace) as release:
        release.uninstall(site.name, ignore_not_found=True, timeout=120)


def small_job(image: str, **changes: Any) -> Values:
    """Job settings for a phantom training: half a core, a minute."""
    return {
        "image": image,
        "require_digest": "@sha256:" in image,
        "gpu": None,
        "cpu": "500m",
        "memory": "1Gi",
        "ephemeral_storage": "1Gi",
        "scratch": "512Mi",
        "shm": "64Mi",
        "deadline_seconds": 900,
        "ttl_seconds": 60,
        "pending_seconds": 300,
        **changes,
    }


def site_values(name: str, image: str = NO_IMAGE, **changes: Any) -> Values:
    """Values of a site that nobody reaches yet. ``changes``: whole sections."""
    nowhere = {"bucket": "nowhere", "endpoint": "http://192.0.2.1:9"}
    keys = {"accessKey": "nobody", "secretKey": "nothing"}
    return {
        "site": name,
        "server": {"serviceAccount": {"create": True}},
        "exchange": nowhere,
        "data": nowhere,
        "policy": {
            "server_public_key": "XN+ifKqTPYLNP0Rd9Rs2pVSJEd5A9sdvXRKHGqKM7/w=",
            "min_cell": 1,
            "allow": {
                "purposes": ["brain-tumour-research"],
                "modalities": ["t1ce", "flair", "ct", "pet"],
            },
        },
        "credentials": {"exchange": keys, "data": keys},
        "job": small_job(image),
        "networkPolicy": {"enabled": False},
        **changes,
    }


def _token(admin: Access, namespace: str) -> str | None:
    found = admin.get("Secret", "fedcore-server-token", namespace)
    data: Mapping[str, str] = (found or {}).get("data") or {}
    return base64.b64decode(data["token"]).decode() if "token" in data else None
