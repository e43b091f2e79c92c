"""A hospital that lets nobody call in: its own agent makes the Jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_api import Access, wait_for
from cluster_launch import jobs, pods
from cluster_network import api_addresses, pods_reach_the_api
from cluster_run import ROUNDS, Coordinator, closed, federation_file, plan_file, values_on
from cluster_s3 import PodS3
from cluster_server import PodPrefect
from cluster_sites import Namespaces, Site, install, uninstall
from kubernetes.client.exceptions import ApiException

from fedcore.store.exchange import Exchange

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def site(
    admin: Access,
    namespaces: Namespaces,
    s3: PodS3,
    image: str,
    key: Path,
    folder: Path,
    enforced: bool,
    may_make_policies: bool,
) -> Iterator[Site]:
    """No subject, no token: the coordinator has no way into this namespace."""
    if not pods_reach_the_api(admin, namespaces.make("to-the-api"), image):
        pytest.skip("in this cluster, pods do not reach the API server at its Service's address")
    values = values_on(
        s3,
        "west",
        image,
        key,
        server={},
        agent={"enabled": True},
        networkPolicy=closed(s3, api_addresses(admin)) if enforced else {"enabled": False},
        admissionPolicy={"enabled": may_make_policies},
    )
    made = install(admin, "west", namespaces.make("west"), values, folder)
    yield made
    uninstall(made)


Begin = Callable[[], Coordinator]


@pytest.fixture(scope="module")
def begin(site: Site, s3: PodS3, key: Path, folder: Path, prefect: PodPrefect) -> Iterator[Begin]:
    """Starts coordinators; ends those that a failed test left."""
    federation = federation_file(folder / "with-agent", s3, key, {"west": None})
    plan = plan_file(folder / "one-site.yaml", 1)
    made: list[Coordinator] = []

    def start() -> Coordinator:
        made.append(Coordinator.start(plan, federation, prefect.url_here))
        return made[-1]

    yield start
    for started in made:
        started.end()


def test_run_by_the_agent(admin: Access, site: Site, begin: Begin, s3: PodS3) -> None:
    """To a verdict, with one Job, which the agent removes when the run is over."""
    run_id, coordinator = begun(begin, s3)
    job = wait_for("the agent has made a Job", lambda: jobs(admin, site, run_id), 120)[0]
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "fedcore"
    result = coordinator.result()
    assert set(result["sites"]) == {"west"}
    assert result["rounds"] == ROUNDS
    assert f"run {run_id} asks for order 0" in agent_log(admin, site)
    wait_for("the Job is gone", lambda: not jobs(admin, site, run_id), 90)


def test_ctrl_c_ends_the_client_there(admin: Access, site: Site, begin: Begin, s3: PodS3) -> None:
    """The call is withdrawn, and the agent deletes its Job at the next look."""
    run_id, coordinator = begun(begin, s3)
    wait_for("the agent's Job has a pod", lambda: pods(admin, site, run_id), 120)
    coordinator.end()
    wait_for("the Job is gone", lambda: not jobs(admin, site, run_id), 90)
    wait_for("its pod is gone", lambda: not pods(admin, site, run_id), 90)


def begun(begin: Begin, s3: PodS3) -> tuple[str, Coordinator]:
    """A new run, and who coordinates it."""
    exchange = Exchange(s3.exchange())
    known = set(exchange.runs())
    coordinator = begin()
    new = wait_for(
        "the run is open",
        lambda: coordinator.is_at_work() and set(exchange.runs()) - known,
        180,
    )
    return new.pop(), coordinator


def agent_log(admin: Access, site: Site) -> str:
    said = []
    for found in admin.list("Pod", site.namespace, "app.kubernetes.io/name=fedcore-agent"):
        try:
            said.append(admin.log(site.namespace, found["metadata"]["name"]))
        except ApiException:
            continue  # it is on its way
    return "\n".join(said)
