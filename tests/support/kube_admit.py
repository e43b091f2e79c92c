"""What happens to a Job between the request and the store: defaults, validation, admission.

As much of ``pkg/apis/batch`` as a Job of fedcore's can get wrong, in its words.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

from kube_scenarios import Denied, QuotaExceeded, Scenarios
from kube_status import JOBS, ApiError, forbidden, invalid
from kube_store import Object

JOB_NAME, CONTROLLER_UID = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
Faults = Iterator[tuple[str, str, str]]


def prepare(job: Object) -> None:
    """Defaults, the uid, and the labels by which a Job finds its pods."""
    meta, spec = job["metadata"], job["spec"]
    meta |= {"uid": str(uuid.uuid4()), "generation": 1}
    template = spec["template"]
    template.setdefault("metadata", {}).setdefault("labels", {})
    if not meta.get("labels"):
        meta["labels"] = dict(template["metadata"]["labels"])
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    defaults = {
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "suspend": False, "podReplacementPolicy": policy, "manualSelector": False,
    }  # fmt: skip
    for name, value in defaults.items():
        spec.setdefault(name, value)
    template["metadata"]["labels"] |= {
        "job-name": meta["name"], JOB_NAME: meta["name"],
        "controller-uid": meta["uid"], CONTROLLER_UID: meta["uid"],
    }  # fmt: skip
    spec["selector"] = {"matchLabels": {CONTROLLER_UID: meta["uid"]}}
    _pod_defaults(template["spec"])
    job["status"] = {}


def _pod_defaults(spec: dict[str, Any]) -> None:
    for name, value in {
        "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "securityContext": {},
    }.items():  # fmt: skip
        spec.setdefault(name, value)
    for container in spec.get("containers", ()):
        for name, value in {
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
            "resources": {},
        }.items():  # fmt: skip
            container.setdefault(name, value)


def validate(job: Object) -> None:
    """Raises ApiError 422 that names each fault."""
    faults = [*_metadata(job), *_spec(job["spec"])]
    if faults:
        raise invalid(JOBS, job["metadata"]["name"], faults)


def _metadata(job: Object) -> Faults:
    name, template = job["metadata"]["name"], job["spec"]["template"]
    if not _NAME.fullmatch(name):
        yield _invalid("metadata.name", f'"{name}"', _SUBDOMAIN)
    for path, meta in (("metadata", job["metadata"]),
                       ("spec.template", template["metadata"])):  # fmt: skip
        for value in meta.get("labels", {}).values():
            if not isinstance(value, str) or len(value) > 63:
                yield _invalid(f"{path}.labels", f'"{value}"', "must be no more than 63 bytes")
            elif not _LABEL.fullmatch(value):
                yield _invalid(f"{path}.labels", f'"{value}"', _LABEL_VALUE)


def _spec(spec: dict[str, Any]) -> Faults:
    for field in ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit",
                  "ttlSecondsAfterFinished"):  # fmt: skip
        if spec.get(field, 0) < 0:
            yield _invalid(f"spec.{field}", spec[field], "must be greater than or equal to 0")
    pod, policy = spec["template"]["spec"], spec.get("podFailurePolicy")
    containers = {container["name"] for container in pod.get("containers", ())}
    for index, rule in enumerate((policy or {}).get("rules", ())):
        yield from _rule(f"spec.podFailurePolicy.rules[{index}]", rule, containers)
    if policy and spec["podReplacementPolicy"] != "Failed":
        value = spec["podReplacementPolicy"]
        why = f'Unsupported value: "{value}": supported values: "Failed"'
        yield "FieldValueNotSupported", "spec.podReplacementPolicy", why
    if not containers:
        yield "FieldValueRequired", "spec.template.spec.containers", "Required value"
    restart = pod.get("restartPolicy")
    path = "spec.template.spec.restartPolicy"
    if restart not in ("OnFailure", "Never"):
        why = 'Required value: valid values: "OnFailure", "Never"'
        yield "FieldValueRequired", path, why
    elif policy and restart != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield _invalid(path, f'"{restart}"', why)


def _rule(path: str, rule: dict[str, Any], containers: set[str]) -> Faults:
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if rule.get("action") not in ("Count", "FailIndex", "FailJob", "Ignore"):
        why = 'Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'
        yield "FieldValueRequired", f"{path}.action", why
    if bool(codes) == bool(conditions):
        which = "both OnExitCodes and OnPodConditions is not supported" if codes else (
            "one of OnExitCodes and OnPodConditions is required")  # fmt: skip
        yield "FieldValueInvalid", path, f"Invalid value: specifying {which}"
    if not codes:
        return
    where, values = f"{path}.onExitCodes", codes.get("values", [])
    name = codes.get("containerName")
    if name is not None and name not in containers:
        why = "must be one of the container or initContainer names in the pod template"
        yield _invalid(f"{where}.containerName", f'"{name}"', why)
    if codes.get("operator") == "In" and 0 in values:
        yield _invalid(f"{where}.values[{values.index(0)}]", 0, "must not be 0 for the In operator")
    if values != sorted(values):
        yield _invalid(
            f"{where}.values", json.dumps(values, separators=(",", ":")), "must be ordered"
        )
    if not values:
        why = "Invalid value: []: at least one value is required"
        yield "FieldValueInvalid", f"{where}.values", why


def _invalid(field: str, value: object, why: str) -> tuple[str, str, str]:
    return "FieldValueInvalid", field, f"Invalid value: {value}: {why}"


def admit(job: Object, scenarios: Scenarios) -> None:
    """Raises ApiError if a quota or an admission policy refuses the Job."""
    meta = job["metadata"]
    if quota := scenarios.take(QuotaExceeded, meta["namespace"], meta["name"]):
        raise forbidden(JOBS, meta["name"], str(quota[0]))
    if denied := scenarios.take(Denied, meta["namespace"], meta["name"]):
        raise _denied(meta["name"], denied[0])


def _denied(name: str, scenario: Denied) -> ApiError:
    error = forbidden(JOBS, name, str(scenario), causes=[{"message": str(scenario)}])
    reason = "Forbidden" if scenario.code == 403 else "Invalid"
    return ApiError({**error.status, "reason": reason, "code": scenario.code})
