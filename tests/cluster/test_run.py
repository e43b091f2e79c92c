"""Two sites, their charts installed, and runs of three rounds to a verdict.

At first the coordinator is ``fedcore run`` here, outside the cluster, with the token that each site
handed out; then it is the server's chart, in the cluster. Each disturbed run ends with the very
params of the undisturbed one.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
from cluster_api import Access, Object, wait_for
from cluster_launch import jobs, pods
from cluster_run import ROUNDS, Coordinator, closed, federation_file, plan_file, values_on
from cluster_s3 import PodS3
from cluster_server import (
    ACCOUNT,
    PodPrefect,
    server_chart,
    server_pod,
    server_secrets,
    server_values,
)
from cluster_sites import Namespaces, Site, install, uninstall

from fedcore.records import RoundRecord
from fedcore.store.exchange import Exchange

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Federation:
    """What the runs of this file have in common."""

    sites: dict[str, Site]
    server_namespace: str
    prefect: PodPrefect
    plan: Path
    file: Path
    exchange: Exchange
    before: dict[str, set[str]]
    """Namespace → what was in it before anything was installed."""


@pytest.fixture(scope="module")
def federation(
    admin: Access,
    namespaces: Namespaces,
    s3: PodS3,
    image: str,
    key: Path,
    folder: Path,
    enforced: bool,
    prefect: PodPrefect,
    may_make_policies: bool,
) -> Federation:
    home = namespaces.make("server")
    server_secrets(admin, home, s3, key)
    before, sites = {home: admin.contents(home)}, {}
    for name in ("north", "south"):
        namespace = namespaces.make(name)
        before[namespace] = admin.contents(namespace)
        values = values_on(
            s3,
            name,
            image,
            key,
            server={
                "serviceAccount": {"create": True},
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
            },
            networkPolicy=closed(s3) if enforced else {"enabled": False},
            admissionPolicy={"enabled": may_make_policies},
        )
        sites[name] = install(admin, name, namespace, values, folder)
    file = federation_file(folder / "coordinator", s3, key, dict(sites))
    plan = plan_file(folder / "plan.yaml", len(sites))
    return Federation(sites, home, prefect, plan, file, Exchange(s3.exchange()), before)


@pytest.fixture(scope="module")
def start(federation: Federation) -> Iterator[Callable[..., Coordinator]]:
    """Starts coordinators here; ends those that a failed test left."""
    made: list[Coordinator] = []

    def begin(*arguments: str) -> Coordinator:
        prefect = federation.prefect.url_here
        made.append(Coordinator.start(federation.plan, federation.file, prefect, *arguments))
        return made[-1]

    yield begin
    for coordinator in made:
        coordinator.end()


@pytest.fixture(scope="module")
def undisturbed(start: Callable[..., Coordinator]) -> dict[str, Any]:
    return start().result()


def test_three_rounds_to_a_verdict(
    undisturbed: dict[str, Any], admin: Access, federation: Federation
) -> None:
    assert undisturbed["rounds"] == ROUNDS
    assert set(undisturbed["sites"]) == set(federation.sites)
    assert undisturbed["verdict"]["passed"] in (True, False)
    for site in federation.sites.values():
        assert len(jobs(admin, site, undisturbed["run_id"])) == 1, "one warm client for the run"


def test_pod_killed_in_mid_round(
    start: Callable[..., Coordinator],
    undisturbed: dict[str, Any],
    admin: Access,
    federation: Federation,
) -> None:
    """While it works on an order, in the first round and in a later one: its Job makes another."""
    run_id, coordinator = begun(start, federation)
    site, exchange = federation.sites["north"], federation.exchange
    killed: set[str] = set()
    for seq in (0, 2):
        wait_for(f"order {seq}", lambda n=seq: exchange.has_order("north", run_id, n), 240)
        pod = at_work(admin, site, run_id, coordinator, but=killed)
        admin.delete("Pod", pod, site.namespace, grace=0)
        assert not exchange.has_reply("north", run_id, seq), "killed too late to be in mid-round"
        killed.add(pod)
    result = coordinator.result()
    assert result["params_sha256"] == undisturbed["params_sha256"]
    rounds = [round_of(federation, run_id, number) for number in range(ROUNDS)]
    assert [r.dropped for r in rounds] == [{}] * ROUNDS, "every site is in every round"


def test_server_killed_and_resumed(
    start: Callable[..., Coordinator],
    undisturbed: dict[str, Any],
    admin: Access,
    federation: Federation,
) -> None:
    """The clients outlive it, and the next one finds them at work."""
    run_id, coordinator = begun(start, federation)
    wait_for("round 1", lambda: federation.exchange.has_order("north", run_id, 2), 240)
    coordinator.end(signal.SIGKILL)
    before = uids(admin, federation, run_id)
    result = start("--resume").result()
    assert result["run_id"] == run_id
    assert result["params_sha256"] == undisturbed["params_sha256"]
    assert uids(admin, federation, run_id) == before, "no second Job"


def test_ctrl_c_ends_the_clients(
    start: Callable[..., Coordinator], admin: Access, federation: Federation
) -> None:
    run_id, coordinator = begun(start, federation)
    for site in federation.sites.values():
        at_work(admin, site, run_id, coordinator)
    coordinator.end(signal.SIGINT)
    nothing_runs(admin, federation, run_id)


@pytest.fixture(scope="module")
def server(federation: Federation, image: str, s3: PodS3, folder: Path) -> Iterator[helm.Config]:
    """The coordinator's chart, installed and ready."""
    url = federation.prefect.url_in_cluster
    values = server_values(image, federation.plan, s3, url, federation.sites)
    with helm.Config(namespace=federation.server_namespace) as release:
        release.install(server_chart(folder), "fedcore-server", values, timeout=120)
        yield release
        release.uninstall("fedcore-server", ignore_not_found=True, timeout=120)


def test_coordinator_in_the_cluster_moved_in_mid_run(
    server: helm.Config, undisturbed: dict[str, Any], admin: Access, federation: Federation
) -> None:
    """Its pod is deleted, as when a node is drained; the next one takes the run up."""
    run_id, flow_run = asked(federation)
    wait_for("round 1", lambda: federation.exchange.has_order("north", run_id, 2), 240)
    first = server_pod(admin, federation.server_namespace)
    before = uids(admin, federation, run_id)
    admin.delete("Pod", first, federation.server_namespace)
    server_pod(admin, federation.server_namespace, other_than=first)
    done = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    state = wait_for(
        "the flow run has ended",
        lambda: s if (s := federation.prefect.state_of(flow_run)) in done else None,
        300,
    )
    assert state == "COMPLETED", admin.log(
        federation.server_namespace, server_pod(admin, federation.server_namespace)
    )
    last = round_of(federation, run_id, ROUNDS - 1)
    assert last.params_digest == undisturbed["params_sha256"]
    assert federation.exchange.record(run_id, "release", int) is not None
    assert uids(admin, federation, run_id) == before, "the clients were not touched"


def test_cancel_in_prefects_ui_ends_the_clients(
    server: helm.Config, admin: Access, federation: Federation
) -> None:
    run_id, flow_run = asked(federation)
    for site in federation.sites.values():
        at_work(admin, site, run_id)
    federation.prefect.cancel(flow_run)
    nothing_runs(admin, federation, run_id)


def test_nothing_is_left_after_uninstall(
    server: helm.Config, namespaces: Namespaces, federation: Federation
) -> None:
    """In no namespace, neither of the charts nor of the runs."""
    server.uninstall("fedcore-server", timeout=120)
    for site in federation.sites.values():
        uninstall(site)
    for namespace, before in federation.before.items():
        wait_for(
            f"nothing is left in {namespace}",
            lambda n=namespace, b=before: not namespaces.left_in(n, b),
            180,
        )


def begun(start: Callable[..., Coordinator], federation: Federation) -> tuple[str, Coordinator]:
    """A new run, and who coordinates it."""
    known = set(federation.exchange.runs())
    coordinator = start()

    def look() -> str | None:
        coordinator.is_at_work()
        return next(iter(set(federation.exchange.runs()) - known), None)

    return wait_for("the run is open", look, 180), coordinator


def asked(federation: Federation) -> tuple[str, str]:
    """A run asked for in Prefect, and its flow run."""
    run_id = f"in-cluster-{secrets.token_hex(3)}"
    return run_id, federation.prefect.start_run(run_id)


def round_of(federation: Federation, run_id: str, number: int) -> RoundRecord:
    found = federation.exchange.record(run_id, f"rounds/{number:05d}/record", RoundRecord)
    assert found is not None
    return found


def uids(admin: Access, federation: Federation, run_id: str) -> dict[str, list[str]]:
    """Site → the Jobs of the run."""
    return {
        name: [job["metadata"]["uid"] for job in jobs(admin, site, run_id)]
        for name, site in federation.sites.items()
    }


def nothing_runs(admin: Access, federation: Federation, run_id: str) -> None:
    for site in federation.sites.values():
        wait_for("its Job is gone", lambda s=site: not jobs(admin, s, run_id), 90)
        wait_for("its pod is gone", lambda s=site: not pods(admin, s, run_id), 90)


def at_work(
    admin: Access,
    site: Site,
    run_id: str,
    coordinator: Coordinator | None = None,
    *,
    but: frozenset[str] | set[str] = frozenset(),
) -> str:
    """A pod of the run whose container runs, and that is not one of ``but``."""

    def look() -> Object | None:
        if coordinator is not None:
            coordinator.is_at_work()
        found = [p for p in pods(admin, site, run_id) if p["status"]["phase"] == "Running"]
        return next((pod for pod in found if pod["metadata"]["name"] not in but), None)

    return str(wait_for(f"a client of {site.name} is at work", look, 240)["metadata"]["name"])
