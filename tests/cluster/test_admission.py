"""What the API server denies to who may create Jobs: each forbidden thing, tried on it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from charts import SITE
from charts import values as example
from cluster_api import Access, Object, message_of
from cluster_pods import pod
from cluster_sites import NO_IMAGE, Namespaces, Site, in_force, install
from forbidden import Forbidden, changed, forbidden_jobs
from kubernetes.client.exceptions import ApiException

from fedcore.launch import manifest
from fedcore.records import TrainOrder

pytestmark = pytest.mark.cluster

ORDER = TrainOrder("brain-tumour-1a2b3c4d", "north", 7, 3, "ab" * 32, "cd" * 32)


@pytest.fixture(scope="module")
def site(admin: Access, policies: None, namespaces: Namespaces, folder: Path) -> Site:
    """The chart's own example of a site, with a token for the coordinator."""
    values = example(SITE, "direct") | {"server": {"serviceAccount": {"create": True}}}
    return install(admin, "north", namespaces.make("admission"), values, folder)


@pytest.fixture(scope="module")
def allowed(site: Site) -> Object:
    return manifest.job(site.job, site.namespace, ORDER)


@pytest.fixture(scope="module")
def coordinator(admin: Access, site: Site, allowed: Object) -> Access:
    server = admin.with_token(admin.token_of(site.namespace, "fedcore-server"))
    in_force(server, changed(allowed, {"client/image": NO_IMAGE}, []))
    return server


def test_the_job_that_fedcore_makes_is_admitted(coordinator: Access, allowed: Object) -> None:
    assert coordinator.create(allowed, dry_run="All")["metadata"]["uid"]


@pytest.mark.parametrize(
    "forbidden", forbidden_jobs(), ids=lambda case: f"{case.rule}: {case.what}"
)
def test_one_step_further_is_denied(
    coordinator: Access, allowed: Object, forbidden: Forbidden
) -> None:
    with pytest.raises(ApiException) as refused:
        coordinator.create(forbidden.of(allowed), dry_run="All")
    message = message_of(refused.value)
    assert refused.value.status == 403, message
    assert f"denied request: {forbidden.rule}: " in message
    assert forbidden.word in message


def test_a_job_already_there_cannot_be_changed(
    coordinator: Access, admin: Access, site: Site
) -> None:
    """Not by the server, which may not; whoever may is judged by the same rules."""
    job = manifest.job(site.job, site.namespace, replace(ORDER, seq=8))
    name = coordinator.create(job)["metadata"]["name"]
    with pytest.raises(ApiException) as refused:
        coordinator.patch("Job", name, site.namespace, {"metadata": {"labels": {"team": "x"}}})
    assert refused.value.status == 403
    admin.delete("Job", name, site.namespace)


def test_the_hospital_itself_is_not_bound(admin: Access, allowed: Object) -> None:
    """The policy is about who comes from outside."""
    own = changed(allowed, {"client/args": ["--help"]}, [])
    assert admin.create(own, dry_run="All")


UNSAFE: dict[str, dict[str, Any]] = {
    "privileged": {"securityContext": {"privileged": True}},
    "more privilege later": {"securityContext": {"allowPrivilegeEscalation": True}},
    "a capability": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}},
}
UNSAFE_PODS: dict[str, dict[str, Any]] = {
    "hostNetwork": {"hostNetwork": True},
    "hostPID": {"hostPID": True},
    "the node's files": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    "root": {"securityContext": {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}},
    "every system call": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "Unconfined"}}
    },
}


@pytest.mark.parametrize("what", [*UNSAFE, *UNSAFE_PODS])
def test_pod_security_binds_everyone(admin: Access, bare: Site, what: str) -> None:
    """A second wall, of Kubernetes' own: it holds for whoever may create pods."""
    unsafe = deepcopy(pod("unsafe", bare.namespace, NO_IMAGE, ["fedcore", "--help"]))
    unsafe["spec"].update(UNSAFE_PODS.get(what, {}))
    unsafe["spec"]["containers"][0].update(UNSAFE.get(what, {}))
    with pytest.raises(ApiException) as refused:
        admin.create(unsafe, dry_run="All")
    assert refused.value.status == 403
    assert 'violates PodSecurity "restricted:' in message_of(refused.value)


def test_a_safe_pod_is_let_in(admin: Access, bare: Site) -> None:
    assert admin.create(pod("safe", bare.namespace, NO_IMAGE, ["fedcore"]), dry_run="All")
