"""What a Job, its pods or a refusal of the API server mean, in one sentence with the remedy.

Pure: dictionaries in, a finding out. The wordings of Kubernetes that are recognised here were
looked up in its source, 1.31 to 1.37; what is not recognised is told as Kubernetes said it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedcore.config.job import KubernetesSite

Object = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """How it stands with a Job.

    ``ended``: the Job is over, well or not. ``hopeless``: waiting longer changes nothing, and
    neither does a new start. ``pending``: the pod has not begun, for ``reason``, which may pass.
    ``pod``: the one whose log tells more.
    """

    reason: str = ""
    ended: bool = False
    hopeless: bool = False
    pending: bool = False
    pod: str | None = None


def of_job(job: Object, pods: Sequence[Object], place: KubernetesSite) -> Finding:
    """The state of a Job from its own status and its pods, newest pod last."""
    newest = pods[-1] if pods else None
    conditions = _true_conditions(job)
    if "Complete" in conditions:
        return Finding("its client ended without a reply", ended=True)
    if "Failed" in conditions:
        return _failed(conditions["Failed"], pods, place)
    if job["spec"].get("suspend"):
        queue = place.job.queue
        waits = f"waits in queue {queue!r} of Kueue" if queue else "is suspended"
        return Finding(f"its Job {waits}")
    if newest is None:
        return Finding(
            f"its Job has no pod: a quota or an admission rule for pods in namespace "
            f"{place.namespace} keeps it from being made; `kubectl -n {place.namespace} describe "
            f"job {job['metadata']['name']}` says which",
            pending=True,
        )
    return of_pod(newest, place)


def of_pod(pod: Object, place: KubernetesSite) -> Finding:
    """The state of one pod that its Job still counts on."""
    name, status = _name(pod), pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        if (ended := state.get("terminated")) and ended.get("reason") == "OOMKilled":
            return Finding(_out_of_memory(place), hopeless=True, pod=name)
        if (waiting := state.get("waiting")) and (reason := waiting.get("reason")):
            told = _waiting(reason, str(waiting.get("message", "")), place)
            if told is not None:
                return told
    if status.get("phase") == "Pending":
        missing = {c["type"]: c for c in status.get("conditions", ()) if c["status"] == "False"}
        if "PodScheduled" in missing:
            return _unscheduled(str(missing["PodScheduled"].get("message", "")), place)
        if "PodReadyToStartContainers" in missing:  # before any image is pulled
            return Finding(
                f"its pod's volumes or network are not ready; `kubectl -n {place.namespace} "
                f"describe pod {name}` says why; the site's chart makes ConfigMap "
                f"{place.job.config_map}",
                pending=True,
            )
        return Finding("its pod is being prepared")
    return Finding(pod=name)


def of_refusal(status: int, message: str, place: KubernetesSite) -> Finding:
    """What it means that the API server would not create the Job.

    ``status`` is HTTP's; 401, 403, 404, 422 and the like, not those that a later try mends.
    """
    where = f"namespace {place.namespace}"
    if status == 401:
        return _hopeless(f"the API server does not know the server's credential ({message}); renew "
                         "the kubeconfig or token that the federation file names")  # fmt: skip
    if status == 404:
        return _hopeless(f"there is no {where} on this cluster ({message}); correct the "
                         "federation file, or install the site's chart there")  # fmt: skip
    if quota := re.search(r"exceeded quota: (.+)", message):
        return _quota(quota[1], where)
    if rule := re.search(r"(ValidatingAdmissionPolicy .+|admission webhook .+)", message):
        return _hopeless(f"the site's admission rules deny the Job: {rule[1]}; ask for less in "
                         f"job:, or have the site's chart allow it in {where}")  # fmt: skip
    if verb := re.search(r'User "(.*?)" cannot (\w+) resource "(.+?)"', message):
        return _hopeless(
            f"{verb[1]} may not {verb[2]} {verb[3]} in {where}; the site grants it by "
            "server.subjects in the values of fedcore-site"
        )
    if status in (400, 422):
        return _hopeless(f"the API server does not accept the Job ({message}); correct job: in "
                         "the federation file")  # fmt: skip
    return _hopeless(f"the API server refused the Job ({status}): {message}")


def _failed(condition: Object, pods: Sequence[Object], place: KubernetesSite) -> Finding:
    """Why a Job failed: its own reason, and how its last pod ended."""
    reason, message = condition.get("reason"), str(condition.get("message", ""))
    newest = pods[-1] if pods else None
    ended = next(_terminations(newest), None) if newest is not None else None
    name = _name(newest)
    if reason == "DeadlineExceeded":
        told = (f"its Job ran into its deadline of {place.job.deadline_seconds} s; raise "
                "deadline_seconds in job:")  # fmt: skip
    elif blamed := re.search(r"for pod \S+/(\S+) failed with exit code (\d+)", message):
        name, told = blamed[1], f"its client ended with exit code {blamed[2]}"
    elif ended is not None and ended.get("reason") == "OOMKilled":
        told = _out_of_memory(place)
    elif newest is not None and newest.get("status", {}).get("reason") == "Evicted":
        told = f"its pod was evicted: {newest['status'].get('message', 'by the node')}"
    elif ended is not None:
        told = f"its client ended with exit code {ended.get('exitCode')}"
    else:
        told = f"its Job failed: {reason}: {message}"
    if reason == "BackoffLimitExceeded":
        told += f", {place.job.backoff_limit + 1} times in a row"
    return Finding(told, ended=True, hopeless=True, pod=name)


def _waiting(reason: str, message: str, place: KubernetesSite) -> Finding | None:
    """Why a container does not start; None if it is only on its way."""
    if reason in ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ErrImagePull"):
        told = (f"image {place.job.image} cannot be pulled ({reason}: {message[:200]}); correct "
                "image or image_pull_secrets in job:, or push the image")  # fmt: skip
        # The first failure may be the registry's bad moment; backing off means that it was not.
        return Finding(told, hopeless=reason != "ErrImagePull", pending=True)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        told = (f"its container cannot be made ({message[:200]}); the site's chart makes Secret "
                f"{place.job.secret} and ConfigMap {place.job.config_map}")  # fmt: skip
        return Finding(told, hopeless=True)
    return None


def _unscheduled(message: str, place: KubernetesSite) -> Finding:
    """No node takes the pod: for good, if none has what it asks for, else for now."""
    gpu = place.job.gpu
    if gpu is not None and f"Insufficient {gpu.resource}" in message:
        if _no_preemption_helps(message):
            return Finding(
                f"no node has {gpu.count} {gpu.resource} ({message[:200]}); correct gpu in job:, "
                "or raise pending_seconds where nodes are made on demand",
                pending=True,
            )
        return Finding(f"every {gpu.resource} is in use; its pod waits for one", pending=True)
    return Finding(f"no node takes its pod: {message[:300]}", pending=True)


def _no_preemption_helps(message: str) -> bool:
    """The scheduler's word for: even an empty node would not do."""
    preemption = message.partition("preemption:")[2]
    return "Preemption is not helpful" in preemption and "No preemption victims" not in preemption


def _quota(detail: str, where: str) -> Finding:
    """Too much for the quota now, or more than all of it."""
    asked, limit = (_amounts(detail, word) for word in ("requested", "limited"))
    above = [name for name, amount in asked.items() if name in limit and amount > limit[name]]
    if above:
        return _hopeless(f"the quota of {where} is smaller than the Job ({detail}); ask for less "
                         f"{above[0]} in job:, or have the site raise its quota")  # fmt: skip
    return Finding(f"the quota of {where} is used up ({detail})", pending=True)


def _amounts(detail: str, word: str) -> dict[str, float]:
    found = re.search(rf"{word}: (.+?)(?:, (?:used|limited): |$)", detail)
    pairs = (part.partition("=") for part in found[1].split(",")) if found else ()
    return {name.strip(): quantity(value) for name, _, value in pairs}


_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "Ki": 2.0**10, "M": 1e6, "Mi": 2.0**20, "G": 1e9,
          "Gi": 2.0**30, "T": 1e12, "Ti": 2.0**40, "P": 1e15, "Pi": 2.0**50}  # fmt: skip


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number; NaN, which is larger than nothing, if it is none.

    >>> quantity("500m"), quantity("2Ki"), quantity("3")
    (0.5, 2048.0, 3.0)
    """
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text.strip())
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else float("nan")


def _out_of_memory(place: KubernetesSite) -> str:
    return (f"its client was killed for want of memory at {place.job.memory}; raise memory in "
            "job:, or lower the plan's batch_size")  # fmt: skip


def _hopeless(reason: str) -> Finding:
    return Finding(reason, hopeless=True)


def _true_conditions(found: Object) -> dict[str, Object]:
    conditions = found.get("status", {}).get("conditions") or ()
    return {c["type"]: c for c in conditions if c.get("status") == "True"}


def _terminations(pod: Object) -> Iterator[Object]:
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if (ended := container.get("state", {}).get("terminated")) is not None:
            yield ended


def _name(pod: Object | None) -> str | None:
    return None if pod is None else str(pod["metadata"]["name"])
