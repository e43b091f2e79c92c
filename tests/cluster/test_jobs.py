"""The launcher, the API server and the controllers: what it makes, and what it says in trouble.

No pod has to run here, so no image is needed. The launcher holds the token that the site's chart
made, and so has the rights of the site's Role and no others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_api import Access, wait_for, write_kubeconfig
from cluster_launch import Launches, jobs, order_of, pods
from cluster_sites import NO_GPU, NO_IMAGE, Namespaces, Site, install, site_values

from fedcore.config.job import KubernetesSite
from fedcore.launch import cluster

pytestmark = pytest.mark.cluster


def test_asked_twice_there_is_one_job(admin: Access, bare: Site, launch: Launches) -> None:
    """And asked by another server, which is what a server is that was started again."""
    first, second = launch(bare, gpu=None), launch(bare, gpu=None)
    first.ensure(order_of("twice"))
    uid = first.makes(admin, "twice")["metadata"]["uid"]
    for launched, seq in ((first, 0), (first, 1), (second, 0), (second, 2)):
        launched.ensure(order_of("twice", seq))
        launched.says("cannot be pulled" if NO_IMAGE in bare.job.image else "")
    assert second.makes(admin, "twice")["metadata"]["uid"] == uid


def test_deleted_under_the_launcher(admin: Access, bare: Site, launch: Launches) -> None:
    """By whomever: it is told, and the next look makes another."""
    launched = launch(bare, gpu=None)
    launched.ensure(order_of("deleted"))
    before = launched.makes(admin, "deleted")["metadata"]
    admin.delete("Job", before["name"], bare.namespace)
    status = launched.fails()
    assert "was deleted" in status.reason
    assert not status.permanent
    launched.ensure(order_of("deleted"))
    assert launched.makes(admin, "deleted")["metadata"]["uid"] != before["uid"]


def test_cancel_ends_the_run_and_no_other(admin: Access, bare: Site, launch: Launches) -> None:
    launched, other = launch(bare, gpu=None), launch(bare, gpu=None)
    launched.ensure(order_of("cancelled"))
    other.ensure(order_of("kept"))
    other.makes(admin, "kept")
    launched.makes(admin, "cancelled")
    wait_for("its pod is there", lambda: pods(admin, bare, "cancelled"))
    launched.cancel("cancelled")
    wait_for("Job and pod are gone", lambda: not pods(admin, bare, "cancelled"), 120)
    assert not jobs(admin, bare, "cancelled")
    assert jobs(admin, bare, "kept")
    launched.cancel("cancelled")  # again, without harm


def test_gpu_that_no_node_has(admin: Access, bare: Site, launch: Launches) -> None:
    launched = launch(bare, gpu={"resource": NO_GPU}, pending_seconds=8)
    launched.ensure(order_of("gpu"))
    launched.says(f"no node has 1 {NO_GPU}")
    status = launched.fails()
    assert status.permanent
    assert "correct gpu in job:" in status.reason
    assert "Preemption is not helpful" in status.reason, "the scheduler's own words are kept"
    wait_for("a Job in vain is not left", lambda: not jobs(admin, bare, "gpu"))


def test_node_that_does_not_exist(admin: Access, bare: Site, launch: Launches) -> None:
    launched = launch(bare, gpu=None, node_selector={"fedcore.test": "none"}, pending_seconds=5)
    launched.ensure(order_of("node"))
    status = launched.fails()
    assert status.permanent
    assert status.reason.startswith("no node takes its pod: 0/")


def test_image_that_nobody_can_pull(admin: Access, bare: Site, launch: Launches) -> None:
    launched = launch(bare, image=NO_IMAGE, gpu=None, cpu="10m", memory="32Mi")
    launched.ensure(order_of("image"))
    status = launched.fails(180)
    assert status.permanent
    assert f"image {NO_IMAGE} cannot be pulled (ImagePullBackOff" in status.reason
    wait_for("a Job in vain is not left", lambda: not jobs(admin, bare, "image"))


def test_denied_by_the_sites_rules(policies: None, bare: Site, launch: Launches) -> None:
    launched = launch(bare, image="docker.io/library/busybox:latest", require_digest=False)
    launched.ensure(order_of("denied"))
    status = launched.fails()
    assert status.permanent
    assert status.reason.startswith("the site's admission rules deny the Job: Validating")
    assert (
        "image: spec.template.spec.containers[0].image docker.io/library/busybox" in status.reason
    )


def test_not_let_in(bare: Site, launch: Launches, namespaces: Namespaces) -> None:
    """A namespace whose site has not granted anything."""
    launched = launch(replace(bare, namespace=namespaces.make("closed")))
    launched.ensure(order_of("closed"))
    status = launched.fails()
    assert status.permanent
    assert "may not list jobs" in status.reason
    assert "server.subjects in the values of fedcore-site" in status.reason


def test_unknown_credential(admin: Access, bare: Site, launch: Launches, tmp_path: Path) -> None:
    """As when the site has withdrawn its token."""
    wrong = write_kubeconfig(tmp_path / "kubeconfig", admin, "eyJhbGciOiJSUzI1NiJ9.e30.AA")
    launched = launch(replace(bare, kubeconfig=wrong))
    launched.ensure(order_of("unknown"))
    status = launched.fails()
    assert status.permanent
    assert "does not know the server's credential" in status.reason


@pytest.fixture(scope="module")
def tight(admin: Access, namespaces: Namespaces, may_make_policies: bool, folder: Path) -> Site:
    """A site whose quota is one Job, and pods with 100 MiB in all."""
    values = site_values(
        "tight",
        quota={"jobs": 1, "memory": "100Mi"},
        admissionPolicy={"enabled": may_make_policies},
    )
    return install(admin, "tight", namespaces.make("tight"), values, folder)


def test_quota_of_jobs_used_up(admin: Access, tight: Site, launch: Launches) -> None:
    """It waits for its turn, says so, and takes it."""
    first, second = (launch(tight, memory="50Mi", pending_seconds=60) for _ in range(2))
    first.ensure(order_of("first", site="tight"))
    first.makes(admin, "first")
    wait_for("the quota has counted it", lambda: _used(admin, tight, "count/jobs.batch") == "1")
    second.ensure(order_of("second", site="tight"))
    status = second.says("the quota of namespace")
    assert status.state == "running"
    assert "is used up (fedcore, requested: count/jobs.batch=1" in status.reason
    first.cancel("first")
    second.makes(admin, "second")


def test_quota_too_small_for_the_pod(admin: Access, tight: Site, launch: Launches) -> None:
    """The Job is made, its pod is not: the controller's events say why, and only the site sees."""
    wait_for("the quota is free", lambda: _used(admin, tight, "count/jobs.batch") == "0")
    launched = launch(tight, memory="200Mi", pending_seconds=5)
    launched.ensure(order_of("large", site="tight"))
    status = launched.fails()
    assert status.permanent
    assert "its Job has no pod" in status.reason
    assert f"kubectl -n {tight.namespace} describe job" in status.reason


def _used(admin: Access, site: Site, what: str) -> str | None:
    quota = admin.get("ResourceQuota", "fedcore", site.namespace) or {}
    used: str | None = (quota.get("status") or {}).get("used", {}).get(what)
    return used


def test_no_such_namespace(admin: Access, bare: Site, folder: Path, launch: Launches) -> None:
    """As told to a server that may look everywhere; one that may not is told that it may not."""
    launched = launch(replace(bare, namespace="ct-there-is-none"))
    launched.ensure(order_of("nowhere"))
    assert launched.fails().permanent


def test_requests_per_site_and_round(
    bare: Site, launch: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lists, two watches and a create, however often the server looks."""
    asked: list[str] = []
    ask = cluster._ask

    def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(function.__name__ + " watch" * kwargs.get("watch", False))
        return ask(function, *args, **kwargs)

    monkeypatch.setattr(cluster, "_ask", counted)
    launched = launch(bare, gpu=None, pending_seconds=600, node_selector={"fedcore.test": "none"})
    for seq in range(6):  # three rounds, each a training and an evaluation
        launched.ensure(order_of("counted", seq))
        launched.says("no node takes its pod")
        for _ in range(20):
            launched.launcher.poll("bare")
    assert sorted(asked) == [
        "create_namespaced_job",
        "list_namespaced_job",
        "list_namespaced_job watch",
        "list_namespaced_pod",
        "list_namespaced_pod watch",
    ]


def test_place_is_what_the_chart_wrote(bare: Site) -> None:
    """The settings that the hospital hands out are those that its own policy admits."""
    assert isinstance(bare.place(), KubernetesSite)
    assert bare.place().job == bare.job
