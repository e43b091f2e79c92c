"""k8s/site-import.yaml: the import as a CronJob of the hospital's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from charts import yaml
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.errors import PERMANENT_EXITS
from fedcore.imports import secret

FILE = Path(__file__).parents[2] / "k8s" / "site-import.yaml"
ALLOWED = {"persistentVolumeClaim", "emptyDir"}  # of what the level restricted admits


@pytest.fixture(scope="module")
def manifests() -> list[Any]:
    text = FILE.read_text("utf-8").replace("BUCKET-ADDRESS", "10.0.0.1")
    return yaml(text.replace("NAMESPACE", "north-import").replace("SCANS", "scans"))


@pytest.fixture(scope="module")
def pod(manifests: list[Any]) -> Any:
    (cron,) = [manifest for manifest in manifests if manifest["kind"] == "CronJob"]
    return cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_it_is_as_kubernetes_wants_it(manifests: list[Any], version: str) -> None:
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_it_runs_as_the_charts_pods_do(pod: Any) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(set(volume) - {"name"} <= ALLOWED for volume in pod["volumes"])
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    written = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert written == {"/keep", "/scratch"}


def test_only_what_may_pass_is_tried_again(manifests: list[Any]) -> None:
    spec = manifests[-1]["spec"]["jobTemplate"]["spec"]
    exits = [rule["onExitCodes"]["values"] for rule in spec["podFailurePolicy"]["rules"]
             if rule["action"] == "FailJob"]  # fmt: skip
    assert exits == [list(PERMANENT_EXITS)]


def test_its_command_is_one(pod: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder in the bucket's place, nothing is made of nothing, and a secret kept."""
    (container,) = pod["containers"]
    for folder in ("scans", "keep", "data"):
        (tmp_path / folder).mkdir()
    for variable in container["env"]:
        if variable["name"].startswith("FEDCORE_"):
            monkeypatch.setenv(variable["name"], variable.get("value", "k" * 12))
    monkeypatch.setenv("FEDCORE_DATA", f'{{"folder": "{tmp_path / "data"}"}}')
    program, *words = container["command"]
    assert program == "fedcore"
    words = [word.replace("/scans", f"{tmp_path}/scans").replace("/keep", f"{tmp_path}/keep")
             for word in words]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert secret.load(tmp_path / "keep" / "fedcore-site.secret")


def test_the_secret_stays_closed_when_its_volume_is_mounted_again(pod: Any, tmp_path: Path) -> None:
    """An fsGroup opens every file to the group, unless it is told to look at the root alone."""
    path = tmp_path / "fedcore-site.secret"
    secret.load(path)
    path.chmod(0o660)
    with pytest.raises(Exception, match="others can read"):
        secret.load(path)
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
