"""The rights that the charts give are those of the contract, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from charts import SERVER, SITE, only, render, values

# What the server, or the site's agent, may do in a site's namespace.
CONTRACT = {
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get"},
}


def granted(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """The verbs of a Role by API group and resource."""
    table: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                table.setdefault((group, resource), set()).update(rule["verbs"])
    return table


@pytest.mark.parametrize("example", ["direct", "agent", "remote"])
def test_a_site_grants_the_contract_and_nothing_else(example: str) -> None:
    manifests = render(SITE, values(SITE, example))
    assert granted(only(manifests, "Role")) == CONTRACT
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]
    binding = only(manifests, "RoleBinding")
    assert binding["roleRef"]["name"] == only(manifests, "Role")["metadata"]["name"]


@pytest.mark.parametrize(
    ("example", "subjects"),
    [
        ("direct", {("ServiceAccount", "fedcore-server", "fedcore")}),
        ("agent", {("ServiceAccount", "fedcore-agent", "fedcore-north")}),
        (
            "remote",
            {
                ("User", "oidc:coordinator@example.org", None),
                ("Group", "fedcore-coordinators", None),
                ("ServiceAccount", "fedcore-server", "fedcore-north"),
            },
        ),
    ],
)
def test_only_those_whom_the_values_name_are_let_in(
    example: str, subjects: set[tuple[str, str, str | None]]
) -> None:
    binding = only(render(SITE, values(SITE, example)), "RoleBinding")
    assert {(s["kind"], s["name"], s.get("namespace")) for s in binding["subjects"]} == subjects


def test_a_client_has_neither_rights_nor_token() -> None:
    manifests = render(SITE, values(SITE, "direct"))
    assert only(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    bound = {s["name"] for s in only(manifests, "RoleBinding")["subjects"]}
    assert "fedcore-client" not in bound
    assert only(manifests, "Pod")["spec"]["automountServiceAccountToken"] is False


def test_the_server_needs_no_rights_in_its_own_namespace() -> None:
    manifests = render(SERVER, values(SERVER, "direct"), name="fedcore-server", namespace="fedcore")
    assert only(manifests, "Role")["rules"] == []
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]


@pytest.mark.parametrize(("example", "mounted"), [("direct", True), ("whole", False)])
def test_the_server_has_a_token_only_where_it_makes_jobs_itself(
    example: str, mounted: bool
) -> None:
    deployment = only(render(SERVER, values(SERVER, example)), "Deployment")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is mounted
