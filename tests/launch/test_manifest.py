"""The Job of a client: built purely, the same again, and no more than it needs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore import errors
from fedcore.config.job import JobSettings
from fedcore.launch import manifest
from fedcore.records import TrainOrder

IMAGE = "example.org/fedcore-client@sha256:" + "0" * 64
SETTINGS = JobSettings(image=IMAGE)


def order(run_id: str = "brain-tumour-20261125-101010", seq: int = 3) -> TrainOrder:
    return TrainOrder(run_id, "north", seq, 1, "a" * 64, "b" * 64)


def container(built: manifest.Manifest) -> manifest.Manifest:
    (only,) = built["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_same_order_same_job() -> None:
    first, again = (manifest.job(SETTINGS, "fedcore-north", order()) for _ in range(2))
    assert json.dumps(first) == json.dumps(again)
    assert first["metadata"]["name"].startswith("fedcore-brain-tumour-20261125-101010-3-")


@pytest.mark.parametrize(
    "other",
    [
        manifest.job(SETTINGS, "fedcore-north", order(seq=4)),
        manifest.job(SETTINGS, "fedcore-north", order(run_id="brain-tumour-20261125-101011")),
        manifest.job(SETTINGS, "fedcore-north", order(), attempt=1),
    ],
    ids=["another order", "another run", "another attempt"],
)
def test_names_tell_jobs_apart(other: manifest.Manifest) -> None:
    assert (
        manifest.job(SETTINGS, "fedcore-north", order())["metadata"]["name"]
        != (other["metadata"]["name"])
    )


@given(st.text(min_size=1, max_size=200))
def test_any_run_id_becomes_a_valid_name_and_label(run_id: str) -> None:
    built = manifest.job(SETTINGS, "fedcore-north", order(run_id=run_id, seq=999_999))
    name = built["metadata"]["name"]
    assert len(name) <= 57
    assert all(c.islower() or c.isdigit() or c == "-" for c in name)
    label = built["metadata"]["labels"][manifest.RUN_LABEL]
    assert 1 <= len(label) <= 63
    assert label[0].isalnum()
    assert label[-1].isalnum()


def test_labels_of_different_runs_differ() -> None:
    long = "x" * 70
    assert manifest.label(long + "a") != manifest.label(long + "b")


def test_restricted() -> None:
    """Pod Security ``restricted``, and no token."""
    pod = manifest.job(SETTINGS, "fedcore-north", order())["spec"]["template"]["spec"]
    only = container(manifest.job(SETTINGS, "fedcore-north", order()))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {next(k for k in v if k != "name") for v in pod["volumes"]}
    assert kinds == {"configMap", "emptyDir", "secret"}


def test_the_identity_is_one_file_for_the_client_alone_and_may_be_absent() -> None:
    built = manifest.job(SETTINGS, "fedcore-north", order())
    volumes = {volume["name"]: volume for volume in built["spec"]["template"]["spec"]["volumes"]}
    assert volumes["identity"]["secret"] == {
        "secretName": "fedcore-client",
        "items": [{"key": "identity.pem", "path": "identity.pem"}],
        "defaultMode": 0o400,
        "optional": True,
    }
    mounts = {mount["name"]: mount for mount in container(built)["volumeMounts"]}
    env = {entry["name"]: entry.get("value") for entry in container(built)["env"]}
    assert mounts["identity"]["readOnly"] is True
    assert env["FEDCORE_IDENTITY"] == f"{mounts['identity']['mountPath']}/identity.pem"


def test_credentials_come_by_name_from_the_sites_own_secret() -> None:
    only = container(manifest.job(SETTINGS, "fedcore-north", order()))
    secrets = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]
        for entry in only["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert secrets["FEDCORE_DATA_KEYS__SECRET_KEY"] == {
        "name": "fedcore-client",
        "key": "data-secret-key",
    }
    assert len(secrets) == 4


def test_temporary_exits_are_retried_and_permanent_ones_are_not() -> None:
    policy = manifest.job(SETTINGS, "fedcore-north", order())["spec"]["podFailurePolicy"]
    ignore, fail = policy["rules"]
    assert ignore["action"] == "Ignore"
    assert fail["action"] == "FailJob"
    codes = fail["onExitCodes"]["values"]
    assert errors.TemporaryError.exit_code not in codes
    assert {78, 77, 65} <= set(codes)
    assert not {0, 1, 137, 143} & set(codes), "success, bugs and signals are not for ever"


def test_what_the_site_asks_for() -> None:
    wanted = JobSettings.model_validate(
        {
            "image": IMAGE,
            "gpu": {"resource": "nvidia.com/mig-1g.10gb", "count": 2},
            "queue": "research",
            "runtime_class": "nvidia",
            "priority_class": "low",
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "image_pull_secrets": ["registry"],
        }
    )
    built = manifest.job(wanted, "fedcore-north", order())
    pod, limits = built["spec"]["template"]["spec"], container(built)["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.10gb"] == "2"
    assert built["spec"]["suspend"] is True
    assert built["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("nvidia", "low")
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_no_gpu_is_asked_for_where_there_is_none() -> None:
    limits = container(manifest.job(JobSettings(image=IMAGE, gpu=None), "fedcore-north", order()))[
        "resources"
    ]["limits"]
    assert set(limits) == {"cpu", "memory", "ephemeral-storage"}
