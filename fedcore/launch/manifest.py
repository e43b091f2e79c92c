"""The Kubernetes Job of one client, built purely: the same order and settings give the same dict.

Nothing here talks to a cluster, so every field can be tested, rendered and admitted without one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from fedcore.config.job import JobSettings
from fedcore.errors import PERMANENT_EXITS
from fedcore.records import EvalOrder, TrainOrder

CONTAINER = "client"
COMMAND = ("fedcore", "client")
RUN_LABEL = "fedcore.io/run"
SITE_LABEL = "fedcore.io/site"
DIGEST_ANNOTATION = "fedcore.io/manifest"

IDENTITY = "identity.pem"
"""The key of the site's Secret, and the file in the pod, that holds its identity."""

_USER = 10001  # of the client image; any number above 0 serves, as long as scratch is its own
_LABEL_LENGTH = 63

Manifest = dict[str, Any]


def job(
    settings: JobSettings, namespace: str, order: TrainOrder | EvalOrder, attempt: int = 0
) -> Manifest:
    """The Job whose pod answers ``order``, and the orders after it until it has been idle.

    ``attempt`` tells a Job from one of the same order that has ended.
    """
    labels = {
        "app.kubernetes.io/name": "fedcore-client",
        "app.kubernetes.io/managed-by": "fedcore",
        RUN_LABEL: label(order.run_id),
        SITE_LABEL: label(order.site),
        "fedcore.io/round": str(order.round_num),
        "fedcore.io/plan": order.plan_digest[:32],
    }
    queue = {} if settings.queue is None else {"kueue.x-k8s.io/queue-name": settings.queue}
    built: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(order, attempt),
            "namespace": namespace,
            "labels": labels | queue,
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": settings.backoff_limit,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _POD_FAILURE_POLICY,
            "activeDeadlineSeconds": settings.deadline_seconds,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "suspend": settings.queue is not None,
            "template": {"metadata": {"labels": labels}, "spec": _pod(settings, order)},
        },
    }
    built["metadata"]["annotations"] = {DIGEST_ANNOTATION: _digest(built)}
    return built


def name(order: TrainOrder | EvalOrder, attempt: int = 0) -> str:
    """At most 57 characters, so that the names of its pods fit into a label."""
    place = f"{order.run_id}/{order.site}/{order.seq}/{attempt}"
    readable = re.sub("[^a-z0-9]+", "-", order.run_id.lower())[:30].strip("-")
    return f"fedcore-{readable}-{order.seq}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def label(value: str) -> str:
    """``value`` as the value of a label: itself if it may be one, else shortened, with a digest."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value):
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    readable = re.sub("[^A-Za-z0-9._-]+", "-", value)[: _LABEL_LENGTH - 9].strip("-._")
    return f"{readable}-{digest}".lstrip("-")


_POD_FAILURE_POLICY = {
    "rules": [
        {
            "action": "Ignore",  # evicted, preempted, drained: the next start is free
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": CONTAINER,
                "operator": "In",
                "values": list(PERMANENT_EXITS),
            },
        },
    ]
}


def _pod(settings: JobSettings, order: TrainOrder | EvalOrder) -> Manifest:
    optional = {
        "runtimeClassName": settings.runtime_class,
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class,
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
    }
    return {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, order)],
        "volumes": [
            {"name": "config", "configMap": {"name": settings.config_map}},
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm}},
            {"name": "identity", "secret": _identity(settings)},
        ],
        **{field: value for field, value in optional.items() if value},
    }


def _identity(settings: JobSettings) -> Manifest:
    """The site's identity alone of its Secret; a site without one goes on."""
    return {
        "secretName": settings.secret,
        "items": [{"key": IDENTITY, "path": IDENTITY}],
        "defaultMode": 0o400,
        "optional": True,
    }


def _container(settings: JobSettings, order: TrainOrder | EvalOrder) -> Manifest:
    gpu = {} if settings.gpu is None else {settings.gpu.resource: str(settings.gpu.count)}
    resources = {
        "cpu": settings.cpu,
        "memory": settings.memory,
        "ephemeral-storage": settings.ephemeral_storage,
        **gpu,
    }
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(COMMAND),
        "args": [order.run_id, "--first-order", str(order.seq)],
        "workingDir": "/scratch",
        "env": _env(settings),
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/fedcore", "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": "identity", "mountPath": "/etc/fedcore-identity", "readOnly": True},
        ],
    }


def _env(settings: JobSettings) -> list[Manifest]:
    """Where things are comes from the site's ConfigMap, and keys from its Secret, by name alone."""
    fixed = {
        "FEDCORE_POLICY": "/etc/fedcore/policy.yaml",
        "FEDCORE_IDENTITY": f"/etc/fedcore-identity/{IDENTITY}",
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
    }
    references = {
        "FEDCORE_EXCHANGE": _key_of("configMapKeyRef", settings.config_map, "exchange.json"),
        "FEDCORE_DATA": _key_of("configMapKeyRef", settings.config_map, "data.json"),
    } | {
        f"FEDCORE_{place}_KEYS__{part}_KEY": _key_of(
            "secretKeyRef", settings.secret, f"{place}-{part}-key".lower()
        )
        for place in ("EXCHANGE", "DATA")
        for part in ("ACCESS", "SECRET")
    }
    return [{"name": key, "value": value} for key, value in fixed.items()] + [
        {"name": key, "valueFrom": source} for key, source in references.items()
    ]


def _key_of(kind: str, of: str, key: str) -> Mapping[str, Any]:
    return {kind: {"name": of, "key": key}}


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
