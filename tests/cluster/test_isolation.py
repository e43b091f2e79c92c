"""The isolation table: every credential of a site, tried on everything that is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_api import Access
from cluster_s3 import PodS3
from cluster_sites import Namespaces, Site, install, site_values

from fedcore.local import isolation_table

pytestmark = pytest.mark.cluster


def test_s3_credentials_open_their_own_places_alone(s3: PodS3) -> None:
    rows = isolation_table(s3)  # type: ignore[arg-type]  # it has a stack's shape
    wrong = [row for row in rows if row["allowed"] != row["expected"]]
    assert len(rows) > 100
    assert not wrong


def test_a_sites_token_opens_its_own_namespace_alone(
    admin: Access, bare: Site, namespaces: Namespaces, may_make_policies: bool, folder: Path
) -> None:
    """Two sites that both let a coordinator in: neither's token is good for the other."""
    values = site_values("other", admissionPolicy={"enabled": may_make_policies})
    other = install(admin, "other", namespaces.make("other"), values, folder)
    for site, foreign in ((bare, other), (other, bare)):
        token = admin.with_token(admin.token_of(site.namespace, "fedcore-server"))
        assert token.may("create", "jobs", site.namespace, "batch")
        for verb, group, resource in (
            ("create", "batch", "jobs"),
            ("list", "batch", "jobs"),
            ("delete", "batch", "jobs"),
            ("list", "", "pods"),
            ("get", "", "pods/log"),
            ("get", "", "secrets"),
        ):
            assert not token.may(verb, resource, foreign.namespace, group), (verb, resource)
