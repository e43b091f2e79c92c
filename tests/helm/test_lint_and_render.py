"""The charts lint clean and render, over a matrix of values, by Helm's own engine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
from charts import EXAMPLES, SERVER, SITE, Manifest, notes, only, pod_specs, render, values

from fedcore.config import federation, plan, policy
from fedcore.config.federation import Location
from fedcore.config.job import JobSettings
from fedcore.launch import manifest
from fedcore.records import TrainOrder

CLUSTER_SCOPED = {"Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
ORDER = TrainOrder("run", "north", 0, 1, "ab" * 32, "cd" * 32)


@pytest.mark.parametrize("version", ["v1.31.0", "v1.37.0"])
@pytest.mark.parametrize(("chart", "example"), EXAMPLES)
def test_strict_lint_is_clean(
    charts: dict[str, Path], chart: str, example: str, version: str
) -> None:
    report = helm.lint(
        charts[chart],
        values(charts[chart], example),
        strict=True,
        namespace="default",
        kube_version=version,
    )
    assert report["messages"] == []


@pytest.mark.parametrize("chart", [SITE, SERVER])
def test_lint_without_values_names_what_is_missing(chart: Path) -> None:
    report = helm.lint(chart, {}, strict=True, namespace="default")
    assert any("missing properties" in error for error in report["errors"])


@pytest.mark.parametrize(("chart", "example"), EXAMPLES)
def test_rendering_twice_is_the_same(charts: dict[str, Path], chart: str, example: str) -> None:
    # Nothing random and no clock: an upgrade with the same values changes nothing.
    given = values(charts[chart], example)
    assert render(charts[chart], given) == render(charts[chart], given)


@pytest.mark.parametrize(("chart", "example"), EXAMPLES)
def test_every_pod_is_restricted_and_bounded(
    charts: dict[str, Path], chart: str, example: str
) -> None:
    for spec in pod_specs(render(charts[chart], values(charts[chart], example))).values():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["enableServiceLinks"] is False
        for volume in spec["volumes"]:
            assert "hostPath" not in volume
            assert volume.get("emptyDir", {"sizeLimit": "none"}).get("sizeLimit")
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"cpu", "memory", "ephemeral-storage"}


SWITCHES: dict[str, list[dict[str, Any]]] = {
    "agent": [{}, {"agent": {"enabled": True}}],
    "network": [{}, {"networkPolicy": {"enabled": False}}],
    "quota": [{}, {"quota": {"enabled": False}}],
    "limits": [{}, {"limitRange": {"enabled": False}}],
    "admission": [{}, {"admissionPolicy": {"enabled": False}}],
    "namespace": [{}, {"namespace": {"name": "elsewhere", "create": True}}],
}


@pytest.mark.parametrize("choice", list(itertools.product([0, 1], repeat=len(SWITCHES))), ids=str)
def test_each_switch_makes_or_leaves_out_its_objects(choice: tuple[int, ...]) -> None:
    given = values(SITE, "direct")
    given["networkPolicy"]["kubernetesApi"] = [{"cidr": "10.0.0.1/32", "port": 6443}]
    for taken, choices in zip(choice, SWITCHES.values(), strict=True):
        for key, value in choices[taken].items():
            given[key] = given.get(key, {}) | value
    manifests = render(SITE, given)
    agent, network, quota, limits, admission, namespace = choice
    kinds = [m["kind"] for m in manifests]
    assert kinds.count("Deployment") == agent
    assert kinds.count("NetworkPolicy") == (0 if network else 2 + agent)
    assert kinds.count("ResourceQuota") == 1 - quota
    assert kinds.count("LimitRange") == 1 - limits
    assert kinds.count("ValidatingAdmissionPolicy") == 1 - admission
    assert kinds.count("Namespace") == namespace
    home = "elsewhere" if namespace else "fedcore-north"
    assert {m["metadata"].get("namespace") for m in manifests if m["kind"] not in CLUSTER_SCOPED} \
        == {home}  # fmt: skip
    assert len({(m["kind"], m["metadata"]["name"]) for m in manifests}) == len(manifests)


@pytest.mark.parametrize("example", ["direct", "agent", "remote"])
def test_the_configmap_is_read_by_fedcore(example: str, tmp_path: Path) -> None:
    given = values(SITE, example)
    manifests = render(SITE, given)
    data = only(manifests, "ConfigMap")["data"]
    (tmp_path / "policy.yaml").write_text(data["policy.yaml"], "utf-8")
    read = policy.load(tmp_path / "policy.yaml")
    assert read.site == "north"
    assert read.allow.modalities == given["policy"]["allow"]["modalities"]
    exchange = Location(**json.loads(data["exchange.json"]))
    assert exchange.bucket == "fedcore-exchange"
    assert str(exchange.ca_bundle) == ("/etc/fedcore/ca.pem" if "caBundle" in given else "None")
    assert ("ca.pem" in data) == ("caBundle" in given)
    assert Location(**json.loads(data["data.json"])).bucket == "north"


def test_a_policy_file_may_be_given_whole() -> None:
    given = values(SITE, "direct")
    text = "# ours\nserver_public_key: k\nallow: {purposes: [a], modalities: [mri]}\n"
    data = only(render(SITE, given | {"policy": text}), "ConfigMap")["data"]
    assert "site: north" in data["policy.yaml"]


def test_gpu_null_is_a_site_without_gpus() -> None:
    settings, manifests = job_settings("agent")
    assert settings.gpu is None
    assert not [key for key in only(manifests, "ResourceQuota")["spec"]["hard"] if "gpu" in key]
    default, manifests = job_settings("direct")
    assert default.gpu is not None
    assert only(manifests, "ResourceQuota")["spec"]["hard"]["requests.nvidia.com/gpu"] == "1"
    # Without a default of 0, a maximum would give each pod of the namespace a GPU.
    limit = only(manifests, "LimitRange")["spec"]["limits"][0]
    assert limit["default"]["nvidia.com/gpu"] == "0"


def job_settings(example: str) -> tuple[JobSettings, list[Manifest]]:
    manifests = render(SITE, values(SITE, example))
    text = only(manifests, "ConfigMap")["data"]["job.yaml"]
    return JobSettings(**helm.values_from_yaml(text)), manifests


@pytest.mark.parametrize("example", ["direct", "agent", "remote"])
def test_the_jobs_pod_finds_what_it_refers_to(example: str) -> None:
    """The names in fedcore's manifest are those of the chart's objects."""
    settings, manifests = job_settings(example)
    job = manifest.job(settings, "fedcore-north", ORDER)
    pod = job["spec"]["template"]["spec"]
    config = only(manifests, "ConfigMap", pod["volumes"][0]["configMap"]["name"])
    only(manifests, "ServiceAccount", pod["serviceAccountName"])
    given = values(SITE, example)["credentials"]
    for entry in pod["containers"][0]["env"]:
        source = entry.get("valueFrom", {})
        if "configMapKeyRef" in source:
            assert source["configMapKeyRef"]["key"] in config["data"]
        if "secretKeyRef" in source and not given.get("existingSecret"):
            secret = only(manifests, "Secret", source["secretKeyRef"]["name"])
            assert source["secretKeyRef"]["key"] in secret["stringData"]
        elif "secretKeyRef" in source:
            assert source["secretKeyRef"]["name"] == given["existingSecret"]


@pytest.mark.parametrize("name", ["fedcore-agent", "fedcore-isolation"])
def test_agent_and_probe_are_told_what_a_client_is_told(name: str) -> None:
    settings, manifests = job_settings("agent")
    job = manifest.job(settings, "fedcore-north", ORDER)
    told = pod_specs(manifests)[name]["containers"][0]["env"]
    client = job["spec"]["template"]["spec"]["containers"][0]["env"]
    further = [entry for entry in told if entry not in client]
    # The site's identity is the client's alone: it signs what leaves.
    assert [e["name"] for e in client if e not in told] == ["FEDCORE_IDENTITY"]
    assert further == (
        [{"name": "FEDCORE_JOB", "value": "/etc/fedcore/job.yaml"}]
        if name == "fedcore-agent"
        else []
    )


def test_the_probe_runs_under_the_clients_network_policy() -> None:
    manifests = render(SITE, values(SITE, "direct"))
    probe = only(manifests, "Pod")
    selector = only(manifests, "NetworkPolicy", "fedcore-client")["spec"]["podSelector"]
    assert selector["matchLabels"].items() <= probe["metadata"]["labels"].items()
    assert probe["spec"]["containers"][0]["args"] == [
        "--foreign-bucket=south",
        "--unreachable=kubernetes-dashboard.kube-system:443",
        "--unreachable=$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)",
        "--unreachable=1.1.1.1:443",
    ]


def test_the_network_is_closed_but_for_names_and_the_two_buckets() -> None:
    manifests = render(SITE, values(SITE, "direct"))
    deny = only(manifests, "NetworkPolicy", "fedcore-default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    egress = only(manifests, "NetworkPolicy", "fedcore-client")["spec"]["egress"]
    reached = [
        (
            rule["to"][0].get("ipBlock", {}).get("cidr") or "kube-system",
            {(port["protocol"], port["port"]) for port in rule["ports"]},
        )
        for rule in egress
    ]
    assert reached == [
        ("kube-system", {("UDP", 53), ("TCP", 53)}),
        ("10.20.0.15/32", {("TCP", 9000)}),
        ("192.0.2.10/32", {("TCP", 443)}),
    ]


@pytest.mark.parametrize("example", ["direct", "agent", "remote"])
def test_the_notes_give_the_next_command_and_what_the_coordinator_needs(example: str) -> None:
    text = notes(SITE, values(SITE, example))
    assert "helm test north --namespace fedcore-north" in text
    block = text.split("   sites:\n")[1].split("\n\n")[0]
    read = helm.values_from_yaml("sites:\n" + block.replace("\n   ", "\n").removeprefix("   "))
    site = federation.Site(**read["sites"]["north"])
    assert site.launch == ("agent" if example == "agent" else "kubernetes")
    if site.kubernetes is not None:
        assert site.kubernetes.namespace == "fedcore-north"
        assert site.kubernetes.job == job_settings(example)[0]


def test_keys_given_as_values_are_warned_of() -> None:
    assert "WARNING: the keys" in notes(SITE, values(SITE, "agent"))
    assert "WARNING" not in notes(SITE, values(SITE, "direct"))


@pytest.mark.parametrize("example", ["direct", "whole", "bare"])
def test_plan_and_federation_are_read_by_fedcore(example: str, tmp_path: Path) -> None:
    given = values(SERVER, example)
    data = only(render(SERVER, given), "ConfigMap", "north-fedcore-server")["data"]
    for name in ("plan.yaml", "federation.yaml"):
        (tmp_path / name).write_text(data[name], "utf-8")
    # The digest is what a site approves: the way through Helm may not change it.
    assert plan.load(tmp_path / "plan.yaml").digest == plan.parse(given["plan"]).digest
    read = federation.load(tmp_path / "federation.yaml")
    assert str(read.signing_key) == "/var/run/fedcore/signing-key/signing-key.pem"
    assert str(read.credentials_file) == "/var/run/fedcore/credentials/credentials"
    assert set(read.sites) == set(given["federation"]["sites"])


def test_a_site_in_another_cluster_has_its_kubeconfig_mounted(tmp_path: Path) -> None:
    manifests = render(SERVER, values(SERVER, "direct"))
    (tmp_path / "federation.yaml").write_text(
        only(manifests, "ConfigMap")["data"]["federation.yaml"], "utf-8"
    )
    read = federation.load(tmp_path / "federation.yaml")
    south, north = read.sites["south"].kubernetes, read.sites["north"].kubernetes
    assert south is not None
    assert north is not None
    assert str(south.kubeconfig) == "/var/run/fedcore/kubeconfigs/south"
    assert north.kubeconfig is None
    spec = pod_specs(manifests)["north-fedcore-server"]
    mounts = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["/var/run/fedcore/kubeconfigs"] == "kubeconfigs"


def test_the_server_survives_restarts() -> None:
    manifests = render(SERVER, values(SERVER, "whole"))
    deployment = only(manifests, "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert set(deployment["template"]["spec"]["containers"][0]) >= {
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
    }
    claim = only(manifests, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_changed_plan_starts_the_server_anew_and_the_same_one_does_not() -> None:
    def annotation(given: dict[str, Any]) -> str:
        deployment = only(render(SERVER, given), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["fedcore.io/config"])

    given = values(SERVER, "direct")
    longer = given | {"plan": given["plan"].replace("rounds: 3", "rounds: 30")}
    assert annotation(given) == annotation(values(SERVER, "direct")) != annotation(longer)


def test_prefects_chart_comes_along_only_where_it_is_wanted(charts: dict[str, Path]) -> None:
    def urls(example: str) -> tuple[bool, str]:
        manifests = render(charts["fedcore-server"], values(SERVER, example))
        env = pod_specs(manifests)["north-fedcore-server"]["containers"][0]["env"]
        url = next(entry["value"] for entry in env if entry["name"] == "PREFECT_API_URL")
        return any(m["metadata"]["name"] == "prefect-server" for m in manifests), url

    assert urls("direct") == (False, "http://prefect.example.org:4200/api")
    assert urls("whole") == (True, "http://workflows:4200/api")


@pytest.mark.parametrize(("chart", "example"), EXAMPLES)
def test_no_key_lies_outside_a_secret(charts: dict[str, Path], chart: str, example: str) -> None:
    for rendered in render(charts[chart], values(charts[chart], example)):
        if rendered["kind"] != "Secret":
            assert "for-trials-alone" not in json.dumps(rendered)
