"""Tests on a real cluster: ``KUBECONFIG=… FEDCORE_TEST_IMAGE=… make test-cluster``.

They run against whatever cluster KUBECONFIG names, in namespaces of their own (``ct-<session>-…``),
and leave nothing behind, also when they fail or are interrupted.

``KUBECONFIG``          who may create namespaces, roles, and ValidatingAdmissionPolicies (without
                        the right to these last, what needs them is skipped)
``FEDCORE_TEST_IMAGE``  an image with ``fedcore`` on its PATH, by tag or digest, that the nodes have
                        or can pull. Unset: what needs no pod is tested, the rest is skipped

No registry, no name service, no Service address and no network policy is relied upon. The S3
service that the pods need is started in a pod of the test image; ``weed`` is copied into it from
here if the image has none (so it has to be of the nodes' architecture), and it is reached from
here as ``kubectl port-forward`` does. Pods reach it at its pod's address.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_api import Access
from cluster_forward import Forward
from cluster_launch import Launches
from cluster_network import network_is_enforced
from cluster_run import fill
from cluster_s3 import PORT, PodS3
from cluster_server import PodPrefect, prefect_server, start_prefect
from cluster_sites import NO_GPU, NO_IMAGE, Namespaces, Site, install, site_values
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from fedcore.store import envelope


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="session")
def admin(folder: Path) -> Access:
    """Whoever runs the tests."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("KUBECONFIG names no cluster")
    try:
        access = Access.from_kubeconfig(folder / "discovery")
        allowed = access.may("create", "namespaces")
    except (ConfigException, HTTPError) as error:
        pytest.skip(f"no cluster answers: {error}")
    if not allowed:
        pytest.skip("whom KUBECONFIG names may not create namespaces")
    return access


@pytest.fixture(scope="session")
def may_make_policies(admin: Access) -> bool:
    """The right to the one cluster-scoped kind that the site's chart makes."""
    group = "admissionregistration.k8s.io"
    return all(
        admin.may("create", kind, group=group)
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
    )


@pytest.fixture(scope="session")
def policies(may_make_policies: bool) -> None:
    """For what needs the admission policy."""
    if not may_make_policies:
        pytest.skip("whom KUBECONFIG names may not create ValidatingAdmissionPolicies")


@pytest.fixture(scope="session")
def image() -> str:
    """For what needs pods that run."""
    if not (given := os.environ.get("FEDCORE_TEST_IMAGE")):
        pytest.skip("FEDCORE_TEST_IMAGE is not set: no pod can run fedcore")
    return given


@pytest.fixture(scope="session")
def namespaces(admin: Access) -> Iterator[Namespaces]:
    # Being asked to end is an end like Ctrl-C: what was made is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made = Namespaces(admin, f"ct-{secrets.token_hex(3)}")
    try:
        yield made
    finally:
        made.remove_all()


@pytest.fixture(scope="session")
def bare(admin: Access, namespaces: Namespaces, may_make_policies: bool, folder: Path) -> Site:
    """A site without S3, for what the API server and the controllers do.

    Its Jobs may ask for a GPU that no node has, or for an image that nobody can pull.
    """
    image = os.environ.get("FEDCORE_TEST_IMAGE", NO_IMAGE)
    values = site_values(
        "bare",
        image,
        images={"allowed": sorted({image, NO_IMAGE})},
        admissionPolicy={"enabled": may_make_policies},
    )
    values["job"] |= {"gpu": {"resource": NO_GPU}, "require_digest": False}
    return install(admin, "bare", namespaces.make("bare"), values, folder)


@pytest.fixture(scope="session")
def server(admin: Access, bare: Site) -> Access:
    """The coordinator: who holds the token that the bare site handed out."""
    return admin.with_token(admin.token_of(bare.namespace, "fedcore-server"))


SITES = ("north", "south", "west")


@pytest.fixture(scope="session")
def prefect_namespace(admin: Access, image: str, namespaces: Namespaces) -> str:
    """Where Prefect starts, which takes a while: asked for before S3 and its data are made."""
    namespace = namespaces.make("prefect")
    start_prefect(admin, namespace, image)
    return namespace


@pytest.fixture(scope="session")
def s3(
    admin: Access, image: str, namespaces: Namespaces, folder: Path, prefect_namespace: str
) -> Iterator[PodS3]:
    """The S3 service of the sites in SITES, with their data in it."""
    service = PodS3(admin, namespaces.make("s3"), image, SITES, folder)
    service.start()
    with Forward(admin.api, service.namespace, "s3", PORT) as forward:
        service.s3_endpoint = f"http://127.0.0.1:{forward.port}"
        service.make_buckets()
        fill(service)
        yield service


@pytest.fixture(scope="session")
def key(folder: Path) -> Path:
    """The server's signing key."""
    envelope.create_key(folder / "server.pem")
    return folder / "server.pem"


@pytest.fixture(scope="session")
def enforced(admin: Access, image: str, namespaces: Namespaces, s3: PodS3) -> bool:
    """Whether this cluster's network obeys NetworkPolicies: many do not."""
    return network_is_enforced(admin, namespaces.make("network"), image, s3.address)


@pytest.fixture(scope="session")
def prefect(admin: Access, prefect_namespace: str) -> Iterator[PodPrefect]:
    """A Prefect server for all runs."""
    with prefect_server(admin, prefect_namespace) as server:
        yield server


@pytest.fixture
def launch() -> Iterator[Launches]:
    """Makes launchers, and cancels what they were asked for."""
    made = Launches()
    yield made
    made.end()
