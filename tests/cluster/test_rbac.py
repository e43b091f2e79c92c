"""What the server, the client and the agent may do, by the API server's own word."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_api import Access
from cluster_sites import Namespaces, Site, install, site_values

pytestmark = pytest.mark.cluster

ALLOWED = {
    *((verb, "batch", "jobs") for verb in ("create", "get", "list", "watch", "delete")),
    *((verb, "", "pods") for verb in ("get", "list", "watch")),
    ("get", "", "pods/log"),
}

DENIED = [
    # no change of what runs, no way in
    *((verb, "batch", "jobs") for verb in ("update", "patch", "deletecollection")),
    *((verb, "", "pods") for verb in ("create", "update", "patch", "delete")),
    *(
        ("create", "", f"pods/{door}")
        for door in ("exec", "attach", "portforward", "proxy", "eviction", "ephemeralcontainers")
    ),
    ("get", "", "pods/exec"),
    ("create", "batch", "cronjobs"),
    *(("create", "apps", kind) for kind in ("deployments", "daemonsets", "statefulsets")),
    # no look at the site's keys and policy, and no hand on them
    *(
        (verb, "", kind)
        for kind in ("secrets", "configmaps")
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
    ),
    # no more rights than these
    ("create", "", "serviceaccounts"),
    ("create", "", "serviceaccounts/token"),
    *(
        (verb, "rbac.authorization.k8s.io", kind)
        for kind in ("roles", "rolebindings")
        for verb in ("get", "create", "update", "bind", "escalate")
    ),
    # no hand on the site's walls
    ("update", "", "resourcequotas"),
    ("delete", "", "limitranges"),
    ("delete", "networking.k8s.io", "networkpolicies"),
    ("create", "networking.k8s.io", "networkpolicies"),
    # no storage, no door to the outside
    ("create", "", "persistentvolumeclaims"),
    ("create", "", "services"),
    ("create", "networking.k8s.io", "ingresses"),
    ("list", "", "events"),
]

CLUSTER_WIDE = [
    ("list", "", "nodes"),
    ("list", "", "namespaces"),
    ("create", "", "namespaces"),
    ("delete", "", "namespaces"),
    ("list", "", "secrets"),
    ("list", "", "pods"),
    ("create", "batch", "jobs"),
    ("create", "", "persistentvolumes"),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("update", "admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("impersonate", "", "users"),
]


def named(right: tuple[str, str, str]) -> str:
    verb, group, resource = right
    return f"{verb} {resource}.{group}".rstrip(".")


@pytest.fixture(scope="module")
def client(admin: Access, bare: Site) -> Access:
    """A training pod's account."""
    return admin.with_token(admin.token_of(bare.namespace, "fedcore-client"))


@pytest.mark.parametrize("right", sorted(ALLOWED), ids=named)
def test_the_server_may(server: Access, bare: Site, right: tuple[str, str, str]) -> None:
    verb, group, resource = right
    assert server.may(verb, resource, bare.namespace, group)


@pytest.mark.parametrize("right", DENIED, ids=named)
def test_the_server_may_not(server: Access, bare: Site, right: tuple[str, str, str]) -> None:
    verb, group, resource = right
    assert not server.may(verb, resource, bare.namespace, group)


@pytest.mark.parametrize("right", CLUSTER_WIDE, ids=named)
def test_the_server_may_not_in_the_cluster(server: Access, right: tuple[str, str, str]) -> None:
    verb, group, resource = right
    assert not server.may(verb, resource, None, group)


@pytest.mark.parametrize("right", sorted(ALLOWED), ids=named)
def test_the_server_may_nothing_elsewhere(
    server: Access, namespaces: Namespaces, elsewhere: str, right: tuple[str, str, str]
) -> None:
    """A namespace that let nobody in: one site's token opens one site."""
    verb, group, resource = right
    assert not server.may(verb, resource, elsewhere, group)


@pytest.fixture(scope="module")
def elsewhere(namespaces: Namespaces) -> str:
    return namespaces.make("elsewhere")


def test_that_is_all_the_server_may(server: Access, client: Access, bare: Site) -> None:
    """The whole list, less what this cluster lets every account do."""
    assert server.rules(bare.namespace) - client.rules(bare.namespace) == ALLOWED


def test_a_training_pod_may_nothing(client: Access, bare: Site) -> None:
    for verb, group, resource in [*ALLOWED, *DENIED]:
        assert not client.may(verb, resource, bare.namespace, group), (verb, resource)


def test_the_agent_may_the_same_and_no_more(
    admin: Access, namespaces: Namespaces, folder: Path, may_make_policies: bool
) -> None:
    values = site_values(
        "calls-nobody",
        server={},
        agent={"enabled": True},
        admissionPolicy={"enabled": may_make_policies},
    )
    site = install(admin, "calls-nobody", namespaces.make("agent-rights"), values, folder)
    agent, client = (
        admin.with_token(admin.token_of(site.namespace, account))
        for account in ("fedcore-agent", "fedcore-client")
    )
    assert agent.rules(site.namespace) - client.rules(site.namespace) == ALLOWED
    assert site.kubeconfig is None, "nobody outside has a token"
