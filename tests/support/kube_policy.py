"""How a Job's pods are judged: podFailurePolicy, conditions, back-off. Pure, as the real ones.

After ``pkg/controller/job`` (``pod_failure_policy.go``, ``backoff_utils.go``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kube_store import Object, now

TRACKING = "batch.kubernetes.io/job-tracking"


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    found: str = pod["status"]["phase"]
    return found


def ended(pod: Object) -> bool:
    """Whether its containers have."""
    return phase(pod) in ("Succeeded", "Failed")


def leaving(pod: Object) -> bool:
    """Whether it is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def tracked(pod: Object) -> bool:
    """Whether the Job has yet to count it."""
    return TRACKING in pod["metadata"].get("finalizers", ())


def ready(pod: Object) -> bool:
    """Whether its Ready condition is true."""
    conditions = pod["status"].get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@dataclass(frozen=True)
class Judgement:
    """What the policy says of a failed pod: why the Job fails, if so; whether the pod counts."""

    message: str | None = None
    counts: bool = True


def judge(job: Object, pod: Object) -> Judgement:
    """The first rule that matches, as ``matchPodFailurePolicy``."""
    policy = job["spec"].get("podFailurePolicy") or {}
    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for index, rule in enumerate(policy.get("rules", ())):
        ending = f"matching {rule['action']} rule at index {index}"
        if rule.get("onExitCodes"):
            status = _matching_container(pod, rule["onExitCodes"])
            if status is None:
                continue
            code = status["state"]["terminated"]["exitCode"]
            why = f"Container {status['name']} for pod {where} failed with exit code {code}"
        else:
            condition = _matching_condition(pod, rule.get("onPodConditions", ()))
            if condition is None:
                continue
            why = f"Pod {where} has condition {condition}"
        if rule["action"] == "FailJob":
            return Judgement(f"{why} {ending}")
        return Judgement(counts=rule["action"] != "Ignore")
    return Judgement()


def _matching_container(pod: Object, rule: dict[str, Any]) -> Object | None:
    for status in pod["status"].get("containerStatuses", ()):
        code = status["state"].get("terminated", {}).get("exitCode", 0)
        named = rule.get("containerName") in (None, status["name"])
        if named and code != 0 and (code in rule["values"]) == (rule["operator"] == "In"):
            found: Object = status
            return found
    return None


def _matching_condition(pod: Object, patterns: list[dict[str, str]]) -> str | None:
    for condition in pod["status"].get("conditions", ()):
        for pattern in patterns:
            wanted = (pattern["type"], pattern.get("status", "True"))
            if (condition["type"], condition["status"]) == wanted:
                return wanted[0]
    return None


def condition(kind: str, reason: str, message: str, status: str = "True") -> dict[str, str]:
    """A Job condition."""
    return {
        "type": kind, "status": status, "lastProbeTime": now(), "lastTransitionTime": now(),
        "reason": reason, "message": message,
    }  # fmt: skip


def held(job: Object, kind: str) -> dict[str, str] | None:
    """The Job's condition of this type, if it is true."""
    for found in job.get("status", {}).get("conditions", ()):
        if found["type"] == kind and found["status"] == "True":
            of_kind: dict[str, str] = found
            return of_kind
    return None


def finished(job: Object) -> bool:
    """Whether the Job is Complete or Failed: nothing changes any more."""
    return held(job, "Complete") is not None or held(job, "Failed") is not None


def set_condition(status: Object, new: dict[str, str]) -> None:
    """Put it in place of one of its type; a false one is never added, only changed."""
    conditions = status.setdefault("conditions", [])
    for index, old in enumerate(conditions):
        if old["type"] == new["type"]:
            if any(old[key] != new[key] for key in ("status", "reason", "message")):
                conditions[index] = new
            return
    if new["status"] == "True":
        conditions.append(new)


def backoff(base: float, failures: int) -> float:
    """Seconds from a failure to the next start: doubling, at most 60 times ``base``.

    >>> [backoff(10, n) for n in (0, 1, 2, 3, 9)]
    [0.0, 10.0, 20.0, 40.0, 600.0]
    """
    return 0.0 if failures == 0 else float(min(base * 2 ** (failures - 1), base * 60))
