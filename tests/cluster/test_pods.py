"""How pods end, and what becomes of it: the kubelet, the Job controller and the launcher together.

The Jobs are those that fedcore makes, but for their command: a script that ends as the test wants.
They are made all at once, since each takes its time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from cluster_api import Access, Object, wait_for
from cluster_launch import SMALL, Launched, Launches, jobs, pods, scripted
from cluster_sites import Site
from kubernetes import client

from fedcore.errors import PERMANENT_EXITS

pytestmark = pytest.mark.cluster

Settings = dict[str, Any]

TEMPORARY_EXITS = (75, 1, 137, 143)
_END = "print('some line'); print('fedcore: the last word', flush=True); raise SystemExit({})"
_WAIT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("at work", flush=True)
time.sleep(600)
"""
_HOARD = "hoard = [bytearray(1 << 24) for _ in range(64)]"


MADE: dict[str, tuple[str, Settings]] = {
    **{f"exit-{code}": (_END.format(code), {}) for code in PERMANENT_EXITS},
    **{f"exit-{code}": (_END.format(code), {"backoff_limit": 1}) for code in TEMPORARY_EXITS},
    "memory": (_HOARD, {"backoff_limit": 0}),
    "deadline": (_WAIT, {"deadline_seconds": 15}),
    "evicted": (_WAIT, {"backoff_limit": 0}),
    "no-config": (_WAIT, {"config_map": "nobody", "pending_seconds": 6}),
    "no-keys": (_WAIT, {"secret": "nobody"}),
    "done": (_END.format(0), {"ttl_seconds": 1}),
}
"""Run → what its pods do, and what its Job has otherwise than the site's settings say."""


@pytest.fixture(scope="module")
def made(admin: Access, bare: Site, image: str) -> Iterator[dict[str, Launched]]:
    """Run → the launcher that has taken up its Job, which has just been made."""
    launches, taken = Launches(), {}
    try:
        for run_id, (script, job) in MADE.items():
            order = scripted(admin, bare, run_id, script, **job)
            taken[run_id] = launches(bare, **SMALL, **job)
            taken[run_id].ensure(order)
            taken[run_id].takes_up()
        yield taken
    finally:
        launches.end()


@pytest.mark.parametrize("code", PERMANENT_EXITS)
def test_permanent_exit_code_fails_at_once(
    admin: Access, bare: Site, made: dict[str, Launched], code: int
) -> None:
    status = made[f"exit-{code}"].fails(180)
    assert status.permanent
    assert status.reason == f"its client ended with exit code {code}: fedcore: the last word"
    assert _failure(admin, bare, f"exit-{code}") == "PodFailurePolicy"
    assert len(pods(admin, bare, f"exit-{code}")) == 1


@pytest.mark.parametrize("code", TEMPORARY_EXITS)
def test_temporary_exit_code_gets_a_new_pod(
    admin: Access, bare: Site, made: dict[str, Launched], code: int
) -> None:
    status = made[f"exit-{code}"].fails(180)
    assert status.permanent, "it was tried again, as often as the site allows"
    assert f"ended with exit code {code}, 2 times in a row: fedcore: the last" in status.reason
    assert _failure(admin, bare, f"exit-{code}") == "BackoffLimitExceeded"
    assert len(pods(admin, bare, f"exit-{code}")) == 2


def test_log_is_shown_with_its_last_line_first(
    admin: Access, bare: Site, image: str, launch: Launches, caplog: pytest.LogCaptureFixture
) -> None:
    """There the error is; the launcher may read logs, and nothing else of a pod."""
    order = scripted(admin, bare, "log", _END.format(65))
    launched = launch(bare, **SMALL)
    launched.ensure(order)
    with caplog.at_level(logging.WARNING, "fedcore.run"):
        launched.fails(180)
    assert "its log, last line first:\nfedcore: the last word\nsome line" in caplog.text


def test_too_little_memory(made: dict[str, Launched]) -> None:
    status = made["memory"].fails(180)
    assert status.permanent
    assert status.reason.startswith("its client was killed for want of memory at 128Mi; raise")


def test_config_that_is_not_there(admin: Access, bare: Site, made: dict[str, Launched]) -> None:
    """The kubelet would wait for it for ever; the launcher waits for pending_seconds."""
    status = made["no-config"].fails(180)
    assert status.permanent
    assert status.reason.startswith("its pod's volumes or network are not ready")
    assert status.reason.endswith("the site's chart makes ConfigMap nobody")
    wait_for("a Job in vain is not left", lambda: not jobs(admin, bare, "no-config"))


def test_keys_that_are_not_there(admin: Access, bare: Site, made: dict[str, Launched]) -> None:
    status = made["no-keys"].fails(180)
    assert status.permanent
    assert status.reason.startswith('its container cannot be made (secret "nobody" not found)')
    wait_for("a Job in vain is not left", lambda: not jobs(admin, bare, "no-keys"))


def test_deadline(admin: Access, bare: Site, made: dict[str, Launched]) -> None:
    """The controller ends what runs for too long, and its pod with it."""
    status = made["deadline"].fails(180)
    assert status.permanent
    assert status.reason.startswith("its Job ran into its deadline of 15 s; raise")
    assert _failure(admin, bare, "deadline") == "DeadlineExceeded"
    wait_for("its pod is gone", lambda: not pods(admin, bare, "deadline"), 120)


def test_eviction_costs_no_try(admin: Access, bare: Site, made: dict[str, Launched]) -> None:
    """A drained node is nobody's failure: a new pod, though no failure at all was allowed."""
    before = _at_work(admin, bare, "evicted")["metadata"]["name"]
    body = {"metadata": {"name": before, "namespace": bare.namespace}}
    client.CoreV1Api(admin.api).create_namespaced_pod_eviction(before, bare.namespace, body)
    after = _at_work(admin, bare, "evicted", other_than=before)["metadata"]["name"]
    assert after != before
    assert made["evicted"].launcher.poll("bare").state == "running"


def test_what_is_done_is_removed(admin: Access, bare: Site, made: dict[str, Launched]) -> None:
    """By Kubernetes, after ttl_seconds."""
    wait_for("the Job is gone", lambda: not jobs(admin, bare, "done"), 120)
    wait_for("its pod is gone", lambda: not pods(admin, bare, "done"), 60)


def _failure(admin: Access, site: Site, run_id: str) -> str:
    """The reason of the run's failed Job."""
    (job,) = jobs(admin, site, run_id)
    conditions = {c["type"]: c["reason"] for c in job["status"]["conditions"]}
    return str(conditions["Failed"])


def _at_work(admin: Access, site: Site, run_id: str, *, other_than: str = "") -> Object:
    """The run's newest pod, once its program has said something."""

    def look() -> Object | None:
        found = [p for p in pods(admin, site, run_id) if p["metadata"]["name"] != other_than]
        if not found or found[-1]["status"]["phase"] != "Running":
            return None
        said = admin.log(site.namespace, found[-1]["metadata"]["name"])
        return found[-1] if "at work" in said else None

    return wait_for(f"a pod of {run_id} is at work", look, 180)
