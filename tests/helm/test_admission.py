"""What the site's admission policy lets the server start, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest
from admission import Policy, as_stored
from charts import SITE, only, render, values
from forbidden import Forbidden, changed, forbidden_jobs

from fedcore.config import yaml
from fedcore.config.job import JobSettings
from fedcore.launch import manifest
from fedcore.records import EvalOrder, TrainOrder

ORDER = TrainOrder("brain-tumour-1a2b3c4d", "north", 7, 3, "ab" * 32, "cd" * 32)


def rendered(name: str) -> tuple[Policy, JobSettings]:
    """The policy of an example site, and the job settings that its ConfigMap holds."""
    manifests = render(SITE, values(SITE, name))
    text = only(manifests, "ConfigMap")["data"]["job.yaml"]
    policy = Policy(only(manifests, "ValidatingAdmissionPolicy"))
    return policy, yaml.parse(text, JobSettings, source="job.yaml")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return rendered("direct")[0]


@pytest.fixture(scope="module")
def allowed() -> dict[str, Any]:
    return manifest.job(rendered("direct")[1], "fedcore-north", ORDER)


@pytest.mark.parametrize("example", ["direct", "agent", "remote"])
def test_the_job_that_fedcore_makes_is_admitted(example: str) -> None:
    policy, settings = rendered(example)
    for order in (ORDER, EvalOrder("2026_run.B", "north", 0, 12, "ab" * 32, "cd" * 32)):
        job = manifest.job(settings, "fedcore-north", order, attempt=2)
        assert policy.denials(as_stored(job)) == []


@pytest.mark.parametrize(
    "forbidden", forbidden_jobs(), ids=lambda case: f"{case.rule}: {case.what}"
)
def test_one_step_further_is_denied(
    policy: Policy, allowed: dict[str, Any], forbidden: Forbidden
) -> None:
    denials = policy.denials(as_stored(forbidden.of(allowed)))
    assert denials, f"{forbidden.what} was admitted"
    said = [message for message in denials if message.startswith(f"{forbidden.rule}:")]
    assert said, f"denied, but by {denials}"
    assert forbidden.word in said[0]
    # The API server shows the first message: it has to be the one that names the fault.
    assert denials[0] == said[0]


def test_each_rule_is_tried(policy: Policy) -> None:
    rules = {message.split(":")[0] for message in policy.messages()}
    assert rules == {case.rule for case in forbidden_jobs()}


def test_no_message_spans_lines(policy: Policy) -> None:
    # The API server would replace it by a general one.
    assert not [m for m in policy.messages() if "\n" in m.strip()]


@pytest.mark.parametrize(
    "change",
    [
        {
            "client/resources": {
                "limits": {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1"}
            }
        },
        {"client/resources/limits/cpu": "16", "client/resources/limits/memory": "128Gi"},
        {"pod/nodeSelector": {"gpu": "h100"}},
        {"pod/tolerations": [{"operator": "Exists"}]},
        {"pod/affinity": {"nodeAffinity": {}}},
        {"spec/activeDeadlineSeconds": 604800, "spec/ttlSecondsAfterFinished": 0},
        {"pod/volumes/1/emptyDir/sizeLimit": "100Gi"},
    ],
    ids=", ".join,
)
def test_what_a_site_need_not_forbid_is_admitted(
    policy: Policy, allowed: dict[str, Any], change: dict[str, Any]
) -> None:
    assert policy.denials(as_stored(changed(allowed, change, []))) == []


def test_a_rule_that_cannot_be_judged_denies(policy: Policy, allowed: dict[str, Any]) -> None:
    job = as_stored(changed(allowed, {"client/resources/limits/cpu": "a lot"}, []))
    assert any(message.startswith("error") for message in policy.denials(job))


def test_it_judges_whom_the_site_lets_in_and_no_one_else() -> None:
    direct, agent, remote = (rendered(name)[0] for name in ("direct", "agent", "remote"))
    server = "system:serviceaccount:fedcore:fedcore-server"
    assert direct.concerns(server, ["system:authenticated"])
    assert direct.concerns(server)
    assert not direct.concerns("system:serviceaccount:fedcore-north:fedcore-server", [])
    assert not direct.concerns("admin", ["system:masters"])
    assert agent.concerns("system:serviceaccount:fedcore-north:fedcore-agent", [])
    assert remote.concerns("oidc:coordinator@example.org", [])
    assert remote.concerns("someone", ["system:authenticated", "fedcore-coordinators"])
    assert remote.concerns("system:serviceaccount:fedcore-north:fedcore-server", [])


def test_a_queue_of_the_site_cannot_be_left_out() -> None:
    policy, settings = rendered("agent")
    job = manifest.job(settings, "fedcore-north", ORDER)
    around = changed(job, {"spec/suspend": False}, ["metadata/labels/kueue.x-k8s.io~1queue-name"])
    assert policy.denials(as_stored(around))[0].startswith("queue:")


def test_the_sandbox_of_the_site_cannot_be_left_out() -> None:
    policy, settings = rendered("agent")
    job = manifest.job(settings, "fedcore-north", ORDER)
    around = changed(job, {}, ["pod/runtimeClassName"])
    assert policy.denials(as_stored(around))[0].startswith("scheduling:")


def test_it_guards_this_namespace_alone_and_fails_closed() -> None:
    manifests = render(SITE, values(SITE, "direct"), namespace="fedcore-north")
    spec = only(manifests, "ValidatingAdmissionPolicy")["spec"]
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"]["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "fedcore-north"}
    }
    assert spec["matchConstraints"]["resourceRules"] == [
        {
            "apiGroups": ["batch"],
            "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["jobs"],
        }
    ]
    binding = only(manifests, "ValidatingAdmissionPolicyBinding")["spec"]
    assert binding["validationActions"] == ["Deny", "Audit"]
    assert binding["policyName"] == only(manifests, "ValidatingAdmissionPolicy")["metadata"]["name"]
