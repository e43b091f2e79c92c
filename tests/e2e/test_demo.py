"""The demo as a user runs it: to its end, and with ``kill -9`` on the flow and on its clients.

Each test runs the real command on real services. The killed runs must end with the very params
of the undisturbed one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedcore.config import federation as federations
from fedcore.errors import FedcoreError
from fedcore.server.connect import server_store
from fedcore.store.api import Store

pytestmark = pytest.mark.e2e

COMMAND = [sys.executable, "-m", "fedcore", "demo", "--scale", "0.3", "--rounds", "2", "--json"]
SHIPPED = Path(__file__).parents[2] / "plans" / "brain_tumour.yaml"
TIMEOUT = 600.0


def small_plan(path: Path) -> Path:
    """The shipped plan, shorter, and with splits that leave few subjects enough to evaluate."""
    yaml = YAML()
    plan = yaml.load(SHIPPED)
    plan["training"]["epochs"] = 1
    plan["task"]["dataset"]["arguments"]["fractions"] = [0.4, 0.3, 0.3]
    yaml.dump(plan, path)
    return path


def start(workdir: Path, *arguments: str) -> subprocess.Popen[str]:
    plan = small_plan(workdir.parent / "small.yaml")
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(
            [*COMMAND, "--plan", str(plan), "--workdir", str(workdir), *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its last line. The gate may say no (3): two rounds on few subjects are not a good model."""
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (0, 3), output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def exchange(workdir: Path) -> Store | None:
    path = workdir / "federation.yaml"
    return server_store(federations.load(path)) if path.exists() else None


def wait_for(workdir: Path, process: subprocess.Popen[str], pattern: str) -> None:
    """Until the exchange has a key that ends like this; the stage boundaries of a run are keys."""
    give_up = time.monotonic() + TIMEOUT
    while time.monotonic() < give_up:
        assert process.poll() is None, "it ended before that stage"
        try:
            store = exchange(workdir)
            if store is not None and any(key.endswith(pattern) for key in store.list()):
                return
        except FedcoreError:
            pass  # the stack is still coming up
        time.sleep(0.05)
    raise AssertionError(f"no object {pattern}")


def processes(workdir: Path, words: str = "") -> list[int]:
    """The processes that have ``workdir`` in their command line or environment, and the words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            surroundings = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        ours = str(workdir) in command or str(workdir) in surroundings
        if ours and words in command and "tether.py" not in command:
            found.append(int(folder.name))
    return found


def nothing_runs(workdir: Path) -> bool:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if not processes(workdir):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workdir = tmp_path_factory.mktemp("demo") / "undisturbed"
    return workdir, end(start(workdir))


def test_result_has_what_is_promised(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    _, result = undisturbed
    wanted = {
        "run_id", "rounds", "macro_auc", "accuracy", "sensitivity", "specificity", "f1", "sites",
        "verdict", "onnx", "privacy", "bytes_up", "bytes_down", "seconds", "params_sha256",
        "report",
    }  # fmt: skip
    assert wanted <= set(result)
    assert set(result["sites"]) == {"north", "east", "south", "west"}
    assert {"num_examples", "modalities", "auc", "left_out"} <= set(result["sites"]["west"])
    assert "pet" not in result["sites"]["east"]["modalities"], "east has no PET scanner"
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert result["privacy"]["epsilon"] is None, "no noise, no guarantee"


def test_report_and_model_can_be_opened(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    import onnxruntime

    _, result = undisturbed
    assert "No formal guarantee" in Path(result["report"]).read_text()
    session = onnxruntime.InferenceSession(result["onnx"]["path"])
    assert {"t1ce", "flair", "ct", "pet", "present"} == {i.name for i in session.get_inputs()}


def test_nothing_is_left_running(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    workdir, _ = undisturbed
    assert nothing_runs(workdir), processes(workdir)


@pytest.mark.parametrize("stage", ["replies/north", "rounds/00000/record.json"])
def test_flow_killed_and_resumed(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]], stage: str
) -> None:
    """In the middle of round 0, and right after its commit."""
    pattern = stage if stage.endswith("json") else "000000.safetensors"
    workdir = tmp_path / "killed"
    process = start(workdir)
    wait_for(workdir, process, pattern)
    process.kill()
    process.communicate()
    assert nothing_runs(workdir), "services and clients must not outlive the flow"
    assert end(start(workdir, "--resume"))["params_sha256"] == undisturbed[1]["params_sha256"]


def test_clients_killed(tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]) -> None:
    """Clients are started again within the round."""
    workdir = tmp_path / "hurt"
    process = start(workdir)

    def kill(words: str) -> None:
        found = processes(workdir, words)
        assert found, f"no process {words!r} to kill"
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    wait_for(workdir, process, "orders/north/" + _run_id(workdir, process) + "/000000.json")
    _until(lambda: bool(processes(workdir, "-m fedcore client")), process)
    kill("-m fedcore client")
    result = end(process)
    assert result["params_sha256"] == undisturbed[1]["params_sha256"]
    assert nothing_runs(workdir)


def _run_id(workdir: Path, process: subprocess.Popen[str]) -> str:
    wait_for(workdir, process, "/run.json")
    store = exchange(workdir)
    assert store is not None
    return next(key.split("/")[1] for key in store.list("records/"))


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.05)
