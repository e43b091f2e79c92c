"""Two sites, their charts installed, and runs of three rounds to a verdict.

The coordinator is ``fedcore run`` here, outside the cluster, with the token that each site handed
out. Each disturbed run ends with the very params of the undisturbed one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_api import Access, Object, wait_for
from cluster_launch import jobs, pods
from cluster_run import ROUNDS, Coordinator, closed, federation_file, plan_file, values_on
from cluster_s3 import PodS3
from cluster_sites import Namespaces, Site, install, uninstall

from fedcore.store.exchange import Exchange

pytestmark = pytest.mark.cluster

Sites = dict[str, Site]
Start = Callable[..., Coordinator]


@pytest.fixture(scope="module")
def before(namespaces: Namespaces, admin: Access) -> dict[str, set[str]]:
    """Namespace → what is in it before anything is installed."""
    made = [namespaces.make(name) for name in ("north", "south")]
    return {namespace: admin.contents(namespace) for namespace in made}


@pytest.fixture(scope="module")
def sites(
    admin: Access,
    before: dict[str, set[str]],
    s3: PodS3,
    image: str,
    key: Path,
    folder: Path,
    enforced: bool,
    may_make_policies: bool,
) -> Iterator[Sites]:
    network = closed(s3) if enforced else {"enabled": False}
    made = {}
    for name, namespace in zip(("north", "south"), before, strict=True):
        values = values_on(
            s3,
            name,
            image,
            key,
            networkPolicy=network,
            admissionPolicy={"enabled": may_make_policies},
        )
        made[name] = install(admin, name, namespace, values, folder)
    yield made
    for site in made.values():
        uninstall(site)


@pytest.fixture(scope="module")
def plan(folder: Path) -> Path:
    return plan_file(folder / "plan.yaml")


@pytest.fixture
def start(plan: Path, folder: Path, s3: PodS3, key: Path, sites: Sites) -> Iterator[Start]:
    """Starts coordinators; ends those that a failed test left."""
    federation = federation_file(folder / "coordinator", s3, key, dict(sites))
    made: list[Coordinator] = []

    def begin(*arguments: str) -> Coordinator:
        made.append(Coordinator.start(plan, federation, *arguments))
        return made[-1]

    yield begin
    for coordinator in made:
        coordinator.end()


@pytest.fixture(scope="module")
def undisturbed(plan: Path, folder: Path, s3: PodS3, key: Path, sites: Sites) -> dict[str, Any]:
    federation = federation_file(folder / "coordinator", s3, key, dict(sites))
    coordinator = Coordinator.start(plan, federation)
    try:
        return coordinator.result()
    finally:
        coordinator.end()


def test_three_rounds_to_a_verdict(
    undisturbed: dict[str, Any], admin: Access, sites: Sites
) -> None:
    assert undisturbed["rounds"] == ROUNDS
    assert set(undisturbed["sites"]) == set(sites)
    assert undisturbed["verdict"]["passed"] in (True, False)
    assert len(undisturbed["params_sha256"]) == 64
    for site in sites.values():
        assert len(jobs(admin, site, undisturbed["run_id"])) == 1, "one warm client for the run"


def test_pod_killed_in_mid_round(
    start: Start, undisturbed: dict[str, Any], admin: Access, sites: Sites, s3: PodS3
) -> None:
    """While it trains, in the first round and in a later one: its Job makes another."""
    coordinator = start()
    run_id = new_run(coordinator, s3, undisturbed["run_id"])
    site, exchange = sites["north"], Exchange(s3.exchange())
    killed = set()
    for seq in (0, 2):
        wait_for(f"order {seq}", lambda n=seq: exchange.has_order("north", run_id, n), 240)
        pod = at_work(admin, site, run_id, coordinator, but=killed)
        admin.delete("Pod", pod, site.namespace, grace=0)
        assert not exchange.has_reply("north", run_id, seq), "killed too late to be in mid-round"
        killed.add(pod)
    result = coordinator.result()
    assert result["params_sha256"] == undisturbed["params_sha256"]
    assert set(result["sites"]) == set(sites)


def test_server_killed_and_resumed(
    start: Start, undisturbed: dict[str, Any], admin: Access, sites: Sites, s3: PodS3
) -> None:
    """The clients outlive it, and the next one finds them at work."""
    coordinator = start()
    run_id = new_run(coordinator, s3, undisturbed["run_id"])
    exchange = Exchange(s3.exchange())
    wait_for("round 1", lambda: exchange.has_order("north", run_id, 2), 240)
    coordinator.end(signal.SIGKILL)
    before = {name: jobs(admin, site, run_id)[0]["metadata"]["uid"] for name, site in sites.items()}
    result = start("--resume").result()
    assert result["run_id"] == run_id
    assert result["params_sha256"] == undisturbed["params_sha256"]
    after = {name: [j["metadata"]["uid"] for j in jobs(admin, site, run_id)]
             for name, site in sites.items()}  # fmt: skip
    assert after == {name: [uid] for name, uid in before.items()}, "no second Job"


def test_ctrl_c_ends_the_clients(
    start: Start, undisturbed: dict[str, Any], admin: Access, sites: Sites, s3: PodS3
) -> None:
    coordinator = start()
    run_id = new_run(coordinator, s3, undisturbed["run_id"])
    for site in sites.values():
        at_work(admin, site, run_id, coordinator)
    coordinator.end(signal.SIGINT)
    for site in sites.values():
        wait_for("its Job is gone", lambda s=site: not jobs(admin, s, run_id), 60)
        wait_for("its pod is gone", lambda s=site: not pods(admin, s, run_id), 60)


def test_nothing_is_left_after_uninstall(
    admin: Access, sites: Sites, before: dict[str, set[str]], undisturbed: dict[str, Any]
) -> None:
    """Not even Jobs and pods of runs: they belong to the chart's account no more."""
    for site in sites.values():
        uninstall(site)
        wait_for(
            f"the namespace of {site.name} is as it was",
            lambda s=site: admin.contents(s.namespace) == before[s.namespace],
            180,
        )


def new_run(coordinator: Coordinator, s3: PodS3, *known: str) -> str:
    """The run that the coordinator has begun."""
    exchange = Exchange(s3.exchange())

    def look() -> str | None:
        coordinator.is_at_work()
        return max(set(exchange.runs()) - set(known), default=None)

    return wait_for("the run is open", look, 180)


def at_work(
    admin: Access, site: Site, run_id: str, coordinator: Coordinator, *, but: set[str] = frozenset()
) -> str:
    """A pod of the run whose container runs, and that is not one of ``but``."""

    def look() -> Object | None:
        coordinator.is_at_work()
        return next(
            (
                pod
                for pod in pods(admin, site, run_id)
                if pod["status"]["phase"] == "Running" and pod["metadata"]["name"] not in but
            ),
            None,
        )

    return str(wait_for(f"a client of {site.name} is at work", look, 240)["metadata"]["name"])
