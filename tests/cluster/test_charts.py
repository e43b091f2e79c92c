"""The charts through Helm's own engine: install, upgrade, rollback, uninstall, and their checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest
from charts import SERVER, SITE
from charts import values as example
from cluster_api import Access, wait_for
from cluster_network import pods_reach_the_api
from cluster_run import closed, values_on
from cluster_s3 import PodS3
from cluster_server import server_chart
from cluster_sites import Namespaces, Site, install, site_values, uninstall

pytestmark = pytest.mark.cluster


def test_site_installed_upgraded_rolled_back_and_uninstalled(
    admin: Access, namespaces: Namespaces, may_make_policies: bool
) -> None:
    namespace = namespaces.make("lifecycle")
    before = admin.contents(namespace)
    values = site_values("lifecycle", admissionPolicy={"enabled": may_make_policies})
    with helm.Config(namespace=namespace) as release:
        release.install(SITE, "lifecycle", values, timeout=120)
        assert hard(admin, namespace) == ("20", "32")
        changed = values | {"quota": {"jobs": 3, "cpu": "5"}}
        release.upgrade(SITE, "lifecycle", changed, timeout=120)
        assert hard(admin, namespace) == ("3", "5")
        release.rollback("lifecycle", timeout=120)
        assert hard(admin, namespace) == ("20", "32")
        told = [(r["revision"], r["status"]) for r in release.history("lifecycle")]
        assert told == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
        policy = f"fedcore-jobs.{namespace}"
        if may_make_policies:
            assert admin.get("ValidatingAdmissionPolicy", policy)
        release.uninstall("lifecycle", timeout=120)
    wait_for("nothing is left", lambda: not namespaces.left_in(namespace, before), 120)
    if may_make_policies:
        for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
            wait_for(f"no {kind} is left", lambda k=kind: not admin.get(k, policy))


def test_server_installed_upgraded_rolled_back_and_uninstalled(
    admin: Access, namespaces: Namespaces, folder: Path
) -> None:
    """Its objects alone: the pod waits for Secrets that are not there."""
    namespace = namespaces.make("coordinator")
    before = admin.contents(namespace)
    values = example(SERVER, "direct") | {"secrets": {"kubeconfigs": "fedcore-kubeconfigs"}}
    chart = server_chart(folder)
    with helm.Config(namespace=namespace) as release:
        release.install(chart, "fedcore-server", values, timeout=120)
        assert "rounds: 3" in plan(admin, namespace)
        changed = values | {"plan": values["plan"].replace("rounds: 3", "rounds: 5")}
        release.upgrade(chart, "fedcore-server", changed, timeout=120)
        assert "rounds: 5" in plan(admin, namespace)
        release.rollback("fedcore-server", timeout=120)
        assert "rounds: 3" in plan(admin, namespace)
        release.uninstall("fedcore-server", timeout=120)
    wait_for("nothing is left", lambda: not namespaces.left_in(namespace, before), 120)


@pytest.mark.parametrize("level", [None, "baseline", "privileged"])
def test_namespace_without_pod_security_is_refused(
    namespaces: Namespaces, level: str | None
) -> None:
    """With the command that mends it, and nothing is installed."""
    namespace = namespaces.make(f"level-{level or 'none'}", level)
    with helm.Config(namespace=namespace) as release:
        with pytest.raises(helm.HelmError) as refused:
            release.install(SITE, "open", site_values("open"), timeout=60)
        assert f"kubectl label --overwrite namespace {namespace} " in str(refused.value)
        assert "pod-security.kubernetes.io/enforce=restricted" in str(refused.value)
        assert release.list(all_states=True) == []


@pytest.fixture(scope="module")
def north(
    admin: Access,
    namespaces: Namespaces,
    s3: PodS3,
    image: str,
    key: Path,
    folder: Path,
    may_make_policies: bool,
) -> Iterator[Site]:
    """A site on the S3 pod, with no network policy."""
    values = values_on(s3, "north", image, key, admissionPolicy={"enabled": may_make_policies})
    site = install(admin, "north", namespaces.make("probed"), values, folder)
    yield site
    uninstall(site)


def test_helm_test_proves_the_isolation(north: Site) -> None:
    """`fedcore probe` in a pod like a client's: its own places open, all others shut."""
    with north.release as release:
        told = release.test("north", timeout=180, logs=True)["logs"]
    for attempt in ("read own data", "write own replies", "write bucket fedcore-site-south"):
        assert attempt in told


def test_helm_test_fails_where_the_isolation_does(north: Site, s3: PodS3) -> None:
    """A bucket that is its own, named as foreign: the test has to find it open."""
    wrong = north.values | {"test": {"foreignBuckets": [s3.site_bucket("north")]}}
    with north.release as release:
        release.upgrade(SITE, "north", wrong, timeout=120)
        with pytest.raises(helm.HelmError):
            release.test("north", timeout=180)
        release.rollback("north", timeout=120)


def test_helm_test_proves_the_network(
    admin: Access, north: Site, namespaces: Namespaces, image: str, s3: PodS3, enforced: bool
) -> None:
    """Neither the Kubernetes API, nor the open network, nor another pod's other port."""
    if not enforced:
        pytest.skip("this cluster's network does not enforce NetworkPolicies")
    assert pods_reach_the_api(admin, namespaces.make("unbound"), image), "else it proves nothing"
    shut = north.values | {
        "networkPolicy": closed(s3),
        "test": {"foreignHosts": [f"{s3.address}:9333"]},
    }
    with north.release as release:
        release.upgrade(SITE, "north", shut, timeout=120)
        told = release.test("north", timeout=180, logs=True)["logs"]
    assert f"connect to {s3.address}:9333" in told


def hard(admin: Access, namespace: str) -> tuple[str, str]:
    """Jobs and CPUs of the site's quota."""
    quota = admin.get("ResourceQuota", "fedcore", namespace)
    assert quota is not None
    return quota["spec"]["hard"]["count/jobs.batch"], quota["spec"]["hard"]["limits.cpu"]


def plan(admin: Access, namespace: str) -> str:
    found = admin.get("ConfigMap", "fedcore-server", namespace)
    assert found is not None
    return str(found["data"]["plan.yaml"])
