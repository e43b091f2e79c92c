"""The Job controller: makes pods, counts how they end, says when a Job is over, removes what is.

After ``pkg/controller/job/job_controller.go``, for Jobs that are not indexed; and as much of the
garbage collector and of the TTL controller as a Job's pods see.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from kube_api import grace_of
from kube_policy import (
    TRACKING,
    backoff,
    condition,
    ended,
    finished,
    held,
    judge,
    leaving,
    phase,
    ready,
    set_condition,
    tracked,
)  # fmt: skip
from kube_scenarios import NoPods, Scenarios
from kube_status import JOBS, PODS, ApiError
from kube_store import FOREGROUND, ORPHAN, Errors, Event, Events, Object, Store, copy, now

Key = tuple[str, str]
_RETRY = 0.2  # seconds until pods that were refused are tried again


@dataclass
class _Memory:
    """What the controller knows of a Job beside the object: clocks finer than its seconds."""

    uid: str
    started: float | None = None
    failures: int = 0
    failed_at: float = 0.0
    ended: float | None = None
    alarm: float | None = None


class JobController:
    """One thread that syncs one Job at a time, when it or a pod of it changes, or time is up.

    ``base``: seconds of back-off after the first failure (10 in a cluster).
    """

    def __init__(self, store: Store, scenarios: Scenarios, errors: Errors, base: float) -> None:
        self._store, self._scenarios, self._base = store, scenarios, base
        self._errors = errors
        self._events: Events = queue.SimpleQueue()
        self._readers = [store.watch(what, "", None, self._events) for what in (JOBS, PODS)]
        self._due: list[tuple[float, Key]] = []
        self._memory: dict[Key, _Memory] = {}
        self._thread = threading.Thread(target=self._run, daemon=True, name="kube-jobs")
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        for reader in self._readers:
            self._store.unwatch(reader)
        self._events.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            key: Key | None = None
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                event = self._events.get(timeout=wait)
            except queue.Empty:
                key = heapq.heappop(self._due)[1]
                if key in self._memory:
                    self._memory[key].alarm = None
            else:
                if event is None:
                    return
                if isinstance(event, Event):
                    key = self._key(event)
            if key is not None:
                try:
                    self._sync(key)
                except Exception as error:  # a thread's end would only be silence
                    self._errors.append(error)

    def _key(self, event: Event) -> Key | None:
        meta = event.object["metadata"]
        if event.resource is JOBS:
            if event.kind == "DELETED":
                self._collect(event.object)
            return meta["namespace"], meta["name"]
        owners = meta.get("ownerReferences") or [{"name": None}]
        return (meta["namespace"], owners[0]["name"]) if owners[0]["name"] else None

    def _after(self, seconds: float, key: Key) -> None:
        """Sync again then, or earlier: each sync says anew when it wants the next."""
        memory, due = self._memory[key], time.monotonic() + seconds
        if memory.alarm is None or due < memory.alarm:
            memory.alarm = due
            heapq.heappush(self._due, (due, key))

    # deletion

    def _collect(self, job: Object) -> None:
        """Background deletion: what a Job that is gone still owns, goes."""
        self._memory.pop((job["metadata"]["namespace"], job["metadata"]["name"]), None)
        for pod in self._pods(job):
            self._release(pod)
            self._delete(pod)

    def _dismantle(self, job: Object, pods: list[Object]) -> None:
        """A Job with a deletionTimestamp: its finalizers say what becomes of the pods."""
        meta = job["metadata"]
        orphan = ORPHAN in meta.get("finalizers", ())
        for pod in pods:
            self._release(pod)
            if orphan:
                self._change(PODS, pod, lambda pod: pod["metadata"].pop("ownerReferences", None))
            elif not leaving(pod):
                self._delete(pod)
        if not orphan and (left := self._pods(job)):
            return self._show(job, left, job["status"])

        def let_go(job: Object) -> None:
            kept = [f for f in job["metadata"]["finalizers"] if f not in (ORPHAN, FOREGROUND)]
            job["metadata"]["finalizers"] = kept

        return self._change(JOBS, job, let_go)

    def _expire(self, key: Key, job: Object) -> None:
        """ttlSecondsAfterFinished."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return
        memory = self._memory[key]
        memory.ended = time.monotonic() if memory.ended is None else memory.ended
        if (left := memory.ended + ttl - time.monotonic()) > 0:
            self._after(left, key)
            return
        with contextlib.suppress(ApiError):
            self._store.delete(JOBS, *key, finalizer=FOREGROUND, uid=job["metadata"]["uid"])

    # a Job that is not over

    def _sync(self, key: Key) -> None:
        job = self._store.find(JOBS, *key)
        if job is None:
            return
        pods, uid = self._pods(job), job["metadata"]["uid"]
        if key not in self._memory or self._memory[key].uid != uid:
            self._memory[key] = _Memory(uid)
        if "deletionTimestamp" in job["metadata"]:
            self._dismantle(job, pods)
        elif finished(job):
            self._expire(key, job)
        else:
            self._reconcile(key, job, pods)

    def _reconcile(self, key: Key, job: Object, pods: list[Object]) -> None:
        memory, status = self._memory[key], copy(job.get("status") or {})
        suspended = job["spec"]["suspend"]
        if "startTime" not in status and not suspended:
            status["startTime"], memory.started = now(), time.monotonic()
        fresh = [pod for pod in pods if tracked(pod)]
        won = [pod for pod in fresh if phase(pod) == "Succeeded"]
        lost = [pod for pod in fresh if self._failed(job, pod)]
        counted = [pod for pod in lost if judge(job, pod).counts]
        if won or lost:
            memory.failures = 0 if won else memory.failures + len(lost)
            memory.failed_at = time.monotonic()
        failed = status.get("failed", 0) + len(counted)
        succeeded = status.get("succeeded", 0) + len(won)
        verdict = self._verdict(key, job, lost, failed)
        if verdict is None and succeeded >= job["spec"]["completions"] and not _active(pods):
            message = "Reached expected number of succeeded pods"
            verdict = condition("SuccessCriteriaMet", "CompletionsReached", message)
        if verdict is not None:
            if verdict["type"] == "FailureTarget":  # every pod that has not ended counts as failed
                rest = [pod for pod in fresh if not ended(pod) and pod not in lost]
                failed, lost = failed + len(rest), lost + rest
            set_condition(status, verdict)
        self._show(job, pods, status)
        for pod in won + lost:  # counted only when nothing can count them twice
            self._release(pod)
        counts = {"failed": failed, "succeeded": succeeded}
        status |= {name: number for name, number in counts.items() if number}
        if verdict is not None:
            return self._finish(job, verdict, status)
        return self._manage(key, job, pods, status)

    def _failed(self, job: Object, pod: Object) -> bool:
        replaced_early = job["spec"]["podReplacementPolicy"] != "Failed" and leaving(pod)
        return phase(pod) == "Failed" or (replaced_early and phase(pod) != "Succeeded")

    def _verdict(
        self, key: Key, job: Object, lost: list[Object], failed: int
    ) -> dict[str, str] | None:
        """The interim condition that decides how the Job ends, or None if it goes on."""
        for kind in ("SuccessCriteriaMet", "FailureTarget"):
            if (already := held(job, kind)) is not None:
                return already
        for pod in lost:
            if (message := judge(job, pod).message) is not None:
                return condition("FailureTarget", "PodFailurePolicy", message)
        if failed > job["spec"]["backoffLimit"]:
            message = "Job has reached the specified backoff limit"
            return condition("FailureTarget", "BackoffLimitExceeded", message)
        deadline, started = job["spec"].get("activeDeadlineSeconds"), self._memory[key].started
        if deadline is None or started is None or job["spec"]["suspend"]:
            return None
        if (left := started + deadline - time.monotonic()) > 0:
            self._after(left, key)
            return None
        message = "Job was active longer than specified deadline"
        return condition("FailureTarget", "DeadlineExceeded", message)

    def _finish(self, job: Object, verdict: dict[str, str], status: Object) -> None:
        """Delete what still runs; the terminal condition waits until it has ended."""
        for pod in _active(self._pods(job)):
            self._delete(pod)
        pods = self._pods(job)
        if not any(leaving(pod) and not ended(pod) for pod in pods):
            kind = "Complete" if verdict["type"] == "SuccessCriteriaMet" else "Failed"
            last = condition(kind, verdict["reason"], verdict["message"])
            set_condition(status, last)
            if kind == "Complete":
                status["completionTime"] = last["lastTransitionTime"]
        self._show(job, pods, status)

    def _manage(self, key: Key, job: Object, pods: list[Object], status: Object) -> None:
        """As many pods as the Job wants now, or none while it is suspended.

        ``pods`` as they were counted: one that has just ended is for the next sync.
        """
        spec, memory = job["spec"], self._memory[key]
        active = _active(pods)
        if spec["suspend"]:
            for pod in active:
                self._release(pod)
                self._delete(pod)
            set_condition(status, condition("Suspended", "JobSuspended", "Job suspended"))
            status.pop("startTime", None)
            memory.started = None
            return self._show(job, self._pods(job), status)
        if held(job, "Suspended"):
            resumed = condition("Suspended", "JobResumed", "Job resumed", "False")
            set_condition(status, resumed)
            status["startTime"], memory.started = now(), time.monotonic()
        wanted = min(spec["parallelism"], max(0, spec["completions"] - status.get("succeeded", 0)))
        if spec["podReplacementPolicy"] == "Failed":
            wanted -= sum(leaving(pod) and not ended(pod) for pod in pods)
        missing = wanted - len(active)
        pause = memory.failed_at + backoff(self._base, memory.failures) - time.monotonic()
        if missing > 0 and memory.failures and pause > 0:
            self._after(pause, key)
        elif missing > 0 and self._scenarios.take(NoPods, *key):
            self._after(_RETRY, key)
        else:
            for _ in range(missing):
                self._start(job)
        return self._show(job, self._pods(job), status)

    # objects

    def _pods(self, job: Object) -> list[Object]:
        meta = job["metadata"]
        return [
            pod
            for pod in self._store.list(PODS, meta["namespace"])
            if any(o["uid"] == meta["uid"] for o in pod["metadata"].get("ownerReferences", ()))
        ]

    def _start(self, job: Object) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        prefix = f"{meta['name']}-"
        suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        owner = {
            "apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"],
            "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        own = {
            "name": prefix[:58] + suffix, "generateName": prefix, "namespace": meta["namespace"],
            "finalizers": [TRACKING], "ownerReferences": [owner],
        }  # fmt: skip
        pod = {
            "metadata": {**template["metadata"], **own},
            "spec": template["spec"],
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        }
        self._store.create(PODS, pod)

    def _delete(self, pod: Object) -> None:
        meta = pod["metadata"]
        with contextlib.suppress(ApiError):  # it has just gone by itself
            self._store.delete(
                PODS, meta["namespace"], meta["name"], grace=grace_of(pod, None), uid=meta["uid"]
            )

    def _release(self, pod: Object) -> None:
        """It is counted: nothing of the Job's holds it any more."""

        def let_go(pod: Object) -> None:
            kept = [f for f in pod["metadata"].get("finalizers", ()) if f != TRACKING]
            pod["metadata"]["finalizers"] = kept

        self._change(PODS, pod, let_go)

    def _show(self, job: Object, pods: list[Object], status: Object) -> None:
        def put(job: Object) -> None:
            job["status"] = _counts(copy(status), pods)

        self._change(JOBS, job, put)

    def _change(self, resource: Any, obj: Object, change: Any) -> None:
        meta = obj["metadata"]

        def same(found: Object) -> None:
            if found["metadata"]["uid"] == meta["uid"]:
                change(found)

        self._store.update(resource, meta["namespace"], meta["name"], same)


def _active(pods: list[Object]) -> list[Object]:
    return [pod for pod in pods if not ended(pod) and not leaving(pod)]


def _counts(status: Object, pods: list[Object]) -> Object:
    active = _active(pods)
    status |= {
        "ready": sum(map(ready, active)),
        "terminating": sum(leaving(pod) and not ended(pod) for pod in pods),
        "uncountedTerminatedPods": {},
    }
    status.pop("active", None)
    if active:
        status["active"] = len(active)
    return status
