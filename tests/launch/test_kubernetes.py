"""The launcher on the stand-in: what it makes, what it says, and what it goes on through."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kube import (
    GPU_ABSENT,
    GPU_BUSY,
    NO_SUCH_NODE,
    CannotStart,
    Denied,
    ImageNotPullable,
    KubeApi,
    NoPods,
    OomKilled,
    QuotaExceeded,
    Unschedulable,
)
from kube_status import JOBS
from launching import NAMESPACE, Client, failed, order, settings, until

from fedcore.errors import ServiceUnavailable
from fedcore.launch import manifest
from fedcore.launch.kubernetes import KubernetesLauncher

Launch = Callable[..., KubernetesLauncher]
EXCESS = QuotaExceeded(
    requested="limits.memory=64Gi", used="limits.memory=0", limited="limits.memory=32Gi"
)


def running(kube: KubeApi, launcher: KubernetesLauncher) -> str:
    """Poll until site north's client runs; the name of its pod."""
    until(kube, launcher, lambda _: bool(kube.pods(NAMESPACE, phase="Running")))
    pod = str(kube.pods(NAMESPACE, phase="Running")[0]["metadata"]["name"])
    kube.until(lambda: "the last word" in kube.log(NAMESPACE, pod))
    return pod


def test_one_warm_job_serves_the_run(kube: KubeApi, launch: Launch) -> None:
    launcher = launch()
    for seq in range(3):
        launcher.ensure(order(seq))
        running(kube, launcher)
    assert len(kube.jobs(NAMESPACE)) == 1
    assert kube.requests.count("create", "jobs", NAMESPACE) == 1


def test_another_server_takes_up_the_job(kube: KubeApi, launch: Launch) -> None:
    """The server was killed; its successor finds the client at work."""
    first = launch()
    first.ensure(order())
    pod = running(kube, first)
    first.close()
    second = launch()
    second.ensure(order(1))
    assert running(kube, second) == pod
    assert kube.requests.count("create", "jobs", NAMESPACE) == 1


def test_lost_answer_to_a_create(kube: KubeApi, launch: Launch) -> None:
    """The Job was made and nobody heard: asked for again, it is there already."""
    launcher = launch()
    kube.lose_reply(verb="create", resource="jobs", times=1)
    launcher.ensure(order())
    running(kube, launcher)
    assert len(kube.jobs(NAMESPACE)) == 1


def test_job_of_that_name_made_by_somebody_else(kube: KubeApi, launch: Launch) -> None:
    """Not ours by its labels, so it is not taken up; its name is taken, so none can be made."""
    built = manifest.job(settings().job, NAMESPACE, order())
    built["metadata"]["labels"] = {}
    built["metadata"]["annotations"] = {}
    kube.store.create(JOBS, built)
    launcher = launch()
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert "there is another Job fedcore-run-1-0-" in status.reason


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        (Denied(), "admission rules deny the Job: .*not pinned by digest"),
        (EXCESS, "quota of namespace fedcore-north is smaller than the Job"),
        (QuotaExceeded(), "quota of namespace fedcore-north is used up"),
        (NoPods(), "has no pod: a quota or an admission rule for pods"),
        (ImageNotPullable(), "image example.org/.* cannot be pulled"),
        (Unschedulable(GPU_ABSENT), "no node has 1 nvidia.com/gpu"),
        (Unschedulable(GPU_BUSY), "every nvidia.com/gpu is in use"),
        (Unschedulable(NO_SUCH_NODE), "no node takes its pod: .*node affinity"),
        (CannotStart(), 'cannot be made .secret "fedcore-client" not found.*Secret fedcore-client'),
        (OomKilled(), "killed for want of memory at 16Gi; raise memory in job:"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_trouble_is_told_with_its_remedy(
    kube: KubeApi, launch: Launch, scenario: Any, told: str
) -> None:
    kube.scenario(scenario, NAMESPACE)
    launcher = launch()
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert status.permanent
    assert re.search(told, status.reason), status.reason
    kube.until(lambda: not kube.pods(NAMESPACE, phase="Pending"))  # nothing is left to wait


@pytest.mark.parametrize("scenario", [QuotaExceeded(), Unschedulable(GPU_BUSY), ImageNotPullable()])
def test_trouble_that_passes(kube: KubeApi, launch: Launch, scenario: Any) -> None:
    """Within ``pending_seconds`` nothing is given up."""
    launcher = launch(pending_seconds=60)
    with kube.scenario(scenario, NAMESPACE, times=1 if scenario == ImageNotPullable() else None):
        if scenario == ImageNotPullable():
            scenario = None
        launcher.ensure(order())
        if scenario is not None:
            until(kube, launcher, lambda status: bool(status.reason))
    running(kube, launcher)


def test_waiting_for_quota_does_not_use_up_the_pods_patience(kube: KubeApi, launch: Launch) -> None:
    """Each wait has its own ``pending_seconds``."""
    launcher = launch(pending_seconds=2)
    with kube.scenario(QuotaExceeded(), NAMESPACE):
        launcher.ensure(order())
        until(kube, launcher, lambda status: "quota" in status.reason)
        time.sleep(1.7)  # most of the patience
        kube.scenario(Unschedulable(GPU_BUSY), NAMESPACE)
    kube.until(lambda: launcher.poll("north") and kube.pods(NAMESPACE))
    begun = time.monotonic()
    assert "in use" in until(kube, launcher, failed).reason
    assert time.monotonic() - begun > 1.5


def test_quota_in_a_form_that_is_not_read_is_waited_for(kube: KubeApi, launch: Launch) -> None:
    odd = QuotaExceeded(requested="memory=12e6", used="memory=9Gi", limited="memory=9Gi")
    launcher = launch(pending_seconds=60)
    with kube.scenario(odd, NAMESPACE):
        launcher.ensure(order())
        until(kube, launcher, lambda status: "is used up" in status.reason)
    running(kube, launcher)


def test_forbidden(kube: KubeApi, launch: Launch) -> None:
    kube.allow("fedcore-server", NAMESPACE, {"jobs": {"get", "list", "watch"}})
    launcher = launch()
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert "may not" in status.reason
    assert "server.subjects in the values of fedcore-site" in status.reason


def test_no_such_namespace(kube: KubeApi, launch: Launch) -> None:
    kube.allow("fedcore-server", "elsewhere")
    launcher = launch("elsewhere")
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert "there is no namespace elsewhere on this cluster" in status.reason


def test_permanent_exit(
    kube: KubeApi, launch: Launch, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.exits = [78]
    launcher = launch()
    launcher.ensure(order())
    with caplog.at_level(logging.WARNING, "fedcore.run"):
        status = until(kube, launcher, failed)
    assert status.permanent
    assert status.reason == "its client ended with exit code 78: the last word"
    assert "last line first:\nthe last word\nstarting" in caplog.text
    assert len(kube.pods(NAMESPACE)) == 1, "a permanent exit is not tried again"


def test_temporary_exits_start_again(kube: KubeApi, launch: Launch, client: Client) -> None:
    client.exits = [75, 75]
    launcher = launch()
    launcher.ensure(order())
    until(kube, launcher, lambda _: len(kube.pods(NAMESPACE)) == 3)
    assert running(kube, launcher)
    assert len(kube.jobs(NAMESPACE)) == 1


def test_too_many_temporary_exits(kube: KubeApi, launch: Launch, client: Client) -> None:
    client.exits = [75] * 3
    launcher = launch(backoff_limit=2)
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert status.permanent
    assert status.reason.startswith("its client ended with exit code 75, 3 times in a row")


def test_deadline(kube: KubeApi, launch: Launch) -> None:
    launcher = launch(deadline_seconds=1)
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert "deadline of 1 s; raise deadline_seconds" in status.reason


@pytest.mark.parametrize("how", ["kill", "evict", "drain", "exit"])
def test_pod_that_is_lost_is_replaced(kube: KubeApi, launch: Launch, how: str) -> None:
    launcher = launch()
    launcher.ensure(order())
    pod = running(kube, launcher)
    getattr(kube, how)(NAMESPACE, pod)
    kube.until(lambda: running(kube, launcher) != pod)
    assert len(kube.jobs(NAMESPACE)) == 1


def test_client_that_idled_out_is_started_again(
    kube: KubeApi, launch: Launch, client: Client
) -> None:
    client.exits = [0]
    launcher = launch()
    launcher.ensure(order())
    status = until(kube, launcher, failed)
    assert not status.permanent
    launcher.ensure(order())
    running(kube, launcher)
    assert len(kube.jobs(NAMESPACE)) == 2


def test_job_deleted_by_somebody(kube: KubeApi, launch: Launch) -> None:
    launcher = launch()
    launcher.ensure(order())
    running(kube, launcher)
    (job,) = kube.jobs(NAMESPACE)
    launcher._places["north"].delete(job["metadata"]["name"])
    status = until(kube, launcher, failed)
    assert not status.permanent
    launcher.ensure(order())
    running(kube, launcher)


def test_queued_by_kueue(kube: KubeApi, launch: Launch) -> None:
    launcher = launch(queue="research")
    launcher.ensure(order())
    status = until(kube, launcher, lambda status: bool(status.reason))
    assert status.reason == "its Job waits in queue 'research' of Kueue"
    time.sleep(1.2)  # longer than pending_seconds: a queue is not a failure
    assert launcher.poll("north").state == "running"
    kube.unsuspend(NAMESPACE, kube.jobs(NAMESPACE)[0]["metadata"]["name"])
    running(kube, launcher)


FAULTS: dict[str, Callable[[KubeApi], object]] = {
    "429": lambda kube: kube.fail(429, verb="create", retry_after=1, times=2),
    "500": lambda kube: kube.fail(500, verb="create", times=2),
    "503 on list": lambda kube: kube.fail(503, verb="list", times=3),
    "reset": lambda kube: kube.reset(verb="create", times=2),
    "410 on watch": lambda kube: kube.expire_watch(times=2),
    "watch dropped": lambda kube: kube.drop_watch(after=1, times=3),
    "watch fails": lambda kube: kube.fail(500, verb="watch", times=2),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_api_server_in_trouble(
    kube: KubeApi, launch: Launch, client: Client, fault: Callable[[KubeApi], object]
) -> None:
    """Whatever happens on the way, there is one Job, and its end is seen."""
    launcher = launch()
    fault(kube)
    launcher.ensure(order())
    pod = running(kube, launcher)
    client.exits = [78]
    kube.exit(NAMESPACE, pod)
    status = until(kube, launcher, failed)
    assert "exit code 78" in status.reason
    assert len(kube.jobs(NAMESPACE)) == 1


def test_api_server_gone(kube: KubeApi, launch: Launch, client: Client) -> None:
    """An outage is told and waited out; what happened meanwhile is seen afterwards."""
    launcher = launch()
    launcher.ensure(order())
    pod = running(kube, launcher)
    client.exits = [78]
    with kube.outage():
        status = until(kube, launcher, lambda status: bool(status.reason))
        assert "does not answer" in status.reason
        assert status.state == "running"
        kube.exit(NAMESPACE, pod)
        assert launcher.poll("north").state == "running"
    assert "exit code 78" in until(kube, launcher, failed, seconds=40).reason


def test_api_server_gone_at_the_start(kube: KubeApi, launch: Launch) -> None:
    launcher = launch()
    with kube.outage():
        launcher.ensure(order())
        status = until(kube, launcher, lambda status: "does not answer" in status.reason)
        assert status.state == "running"
    running(kube, launcher)


def test_hanging_api_server_does_not_hold_up_the_caller(kube: KubeApi, launch: Launch) -> None:
    launcher = launch()
    hanging = kube.hang(verb="list")
    begun = time.monotonic()
    launcher.ensure(order())
    launcher.poll("north")
    assert time.monotonic() - begun < 2
    hanging.lift()


def test_cancel(kube: KubeApi, launch: Launch) -> None:
    """From a process that did not start them, as Prefect's hook does."""
    first = launch()
    first.ensure(order())
    running(kube, first)
    launch().cancel("north", "run-1")
    kube.until(lambda: not kube.jobs(NAMESPACE) and not kube.pods(NAMESPACE))
    with kube.outage(), pytest.raises(ServiceUnavailable, match="were not deleted"):
        launch().cancel("north", "run-1")


def test_closing_ends_the_watches_and_leaves_the_jobs(kube: KubeApi, launch: Launch) -> None:
    launcher = launch()
    launcher.ensure(order())
    running(kube, launcher)
    assert kube.open_watches() == 2
    launcher.close()
    kube.until(lambda: kube.open_watches() == 0)
    names = {thread.name for thread in threading.enumerate()}
    kube.until(lambda: f"watch-{NAMESPACE}" not in {t.name for t in threading.enumerate()})
    assert names
    assert kube.jobs(NAMESPACE)
