"""The site chart's ValidatingAdmissionPolicy, judged as the API server does, without one.

CEL runs on Google's own engine. What Kubernetes adds to CEL and the rules use (``quantity``) is
declared here; the API server's type checking is not repeated.
"""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings
from kubernetes.utils.quantity import parse_quantity

Manifest = dict[str, Any]

_NAMES = ("object", "oldObject", "request", "variables")


class Policy:
    """A ValidatingAdmissionPolicy, ready to judge."""

    def __init__(self, manifest: Manifest) -> None:
        spec = manifest["spec"]
        environment = cel.NewEnv(
            variables=dict.fromkeys(_NAMES, cel.Type.DYN),
            extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings(), _kubernetes()],
        )
        self._conditions = [environment.compile(c["expression"]) for c in spec["matchConditions"]]
        self._variables = {
            v["name"]: environment.compile(v["expression"]) for v in spec["variables"]
        }
        self._messages = [
            rule.get("message") or rule["messageExpression"].lstrip("\"'")
            for rule in spec["validations"]
        ]
        self._rules = [
            (
                environment.compile(rule["expression"]),
                rule.get("message"),
                environment.compile(rule["messageExpression"])
                if "messageExpression" in rule
                else None,
            )
            for rule in spec["validations"]
        ]

    def concerns(self, username: str, groups: list[str] | None = None) -> bool:
        """Whether a Job that this user sends is judged at all."""
        who = {"username": username} | ({} if groups is None else {"groups": groups})
        data = {"request": {"userInfo": who}}
        return all(_value(condition, data) for condition in self._conditions)

    def messages(self) -> list[str]:
        """Each rule's message, as far as it is known beforehand."""
        return self._messages

    def denials(self, job: Manifest) -> list[str]:
        """The messages of the rules that ``job`` breaks; none: it is admitted.

        A rule that cannot be evaluated denies, as with ``failurePolicy: Fail``.
        """
        data: dict[str, Any] = {"object": job, "variables": {}}
        for name, expression in self._variables.items():
            result = expression.eval(data=data)
            # A variable that fails is left out: it fails the rules that use it, and no others.
            if result.type() != cel.Type.ERROR:
                data["variables"] = data["variables"] | {name: result.plain_value()}
        messages = []
        for rule, message, from_expression in self._rules:
            result = rule.eval(data=data)
            if result.type() == cel.Type.ERROR:
                messages.append(f"error: {result.value()}")
            elif not result.value():
                messages.append(message or str(_value(from_expression, data)))
        return messages


def as_stored(job: Manifest) -> Manifest:
    """``job`` with what the API server fills in before it asks the policy (seen on 1.36)."""
    job = deepcopy(job)
    uid, name = "07e860df-2da7-40e8-bb69-73550daf23ee", job["metadata"]["name"]
    job["metadata"] |= {
        "uid": uid,
        "creationTimestamp": "2026-11-25T07:32:05Z",
        "generation": 1,
        "managedFields": [{"manager": "fedcore", "operation": "Update"}],
    }
    spec = job["spec"]
    _fill(spec, completionMode="NonIndexed", manualSelector=False, suspend=False, backoffLimit=6)
    _fill(spec, parallelism=1, completions=1)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    spec["template"]["metadata"]["labels"] |= {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    pod = spec["template"]["spec"]
    _fill(pod, dnsPolicy="ClusterFirst", schedulerName="default-scheduler", securityContext={})
    _fill(pod, terminationGracePeriodSeconds=30, serviceAccount=pod["serviceAccountName"])
    for volume in pod["volumes"]:
        for source in ("configMap", "projected", "secret"):
            if source in volume:
                _fill(volume[source], defaultMode=0o644)
    for container in pod["containers"]:
        _fill(container, imagePullPolicy="IfNotPresent", resources={})
        _fill(container, terminationMessagePath="/dev/termination-log")
        _fill(container, terminationMessagePolicy="File")
    return job | {"status": {}}


def _fill(node: Manifest, **defaults: Any) -> None:
    for field, value in defaults.items():
        node.setdefault(field, value)


def _value(expression: Any, data: dict[str, Any]) -> Any:
    result = expression.eval(data=data)
    assert result.type() != cel.Type.ERROR, result.value()
    return result.plain_value()


def _compare(a: str, b: str) -> int:
    left, right = Decimal(parse_quantity(a)), Decimal(parse_quantity(b))
    return (left > right) - (left < right)


def _kubernetes() -> cel.CelExtension:
    """``quantity(string)`` and ``quantity.compareTo(quantity)``; here a quantity is its string."""
    text = cel.Type.STRING
    return cel.CelExtension(
        "kubernetes",
        [
            cel.FunctionDecl(
                "quantity",
                [cel.Overload("quantity", text, [text], is_member=False, impl=lambda q: q)],
            ),
            cel.FunctionDecl(
                "compareTo",
                [
                    cel.Overload(
                        "compare", cel.Type.INT, [text, text], is_member=True, impl=_compare
                    )
                ],
            ),
        ],
    )
