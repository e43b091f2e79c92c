"""kubectl and Helm as a person uses them, against whatever cluster KUBECONFIG names."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import helm_python as helm
from ruamel.yaml import YAML

Object = dict[str, Any]


class KindError(Exception):
    """The cluster did not do what it has to."""


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints. Raises KindError with what it complains about."""
    done = subprocess.run(
        ["kubectl", *arguments], check=False, input=stdin, capture_output=True, text=True
    )
    if done.returncode:
        raise KindError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout}")
    return done.stdout


def listed(kinds: str, namespace: str, selector: str = "") -> list[Object]:
    """The objects of these kinds in the namespace."""
    found = kubectl("get", kinds, "-n", namespace, "-l", selector, "-o", "json")
    items: list[Object] = json.loads(found)["items"]
    return items


def apply(namespace: str, *manifests: Object) -> None:
    """Create or change these objects."""
    everything = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(everything))


def manifests(path: Path, images: dict[str, str]) -> list[Object]:
    """The objects of a file, each image replaced by the one that has its place."""
    found: list[Object] = list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))
    for manifest in found:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            container["image"] = images[container["image"]]
    return found


def make_namespace(name: str, **labels: str) -> None:
    """A namespace that enforces the restricted level of Pod Security. It must not be there yet."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": enforced | labels}}  # fmt: skip
    kubectl("create", "-f", "-", stdin=json.dumps(manifest))


def wait_until(what: str, condition: Callable[[], object], seconds: float) -> None:
    """Return as soon as the condition holds. Raises KindError when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise KindError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.5)


def wait_for_deployment(namespace: str, name: str, seconds: int = 300) -> None:
    """Until all its pods are ready."""
    kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, f"--timeout={seconds}s")


def wait_for_job(namespace: str, name: str, seconds: float) -> None:
    """Until it is complete. Raises KindError as soon as it has failed."""

    def over() -> bool:
        (job,) = listed("jobs", namespace, f"app.kubernetes.io/name={name}")
        state = {c["type"]: c["status"] for c in job["status"].get("conditions", [])}
        if state.get("Failed") == "True":
            raise KindError(f"Job {name} failed: {kubectl('logs', f'job/{name}', '-n', namespace)}")
        return state.get("Complete") == "True"

    wait_until(f"Job {name} is complete", over, seconds)


@contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[str]:
    """The URL at which the service answers here, for as long as the block lasts."""
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()  # Forwarding from 127.0.0.1:34567 -> 4200
            if "->" not in said:
                raise KindError(f"{' '.join(command)} ended with {process.wait()}")
            yield f"http://{said.split()[2]}"
        finally:
            process.terminate()


def install(chart: Path, name: str, namespace: str, values: Object) -> None:
    """``helm install``, without the charts that this one can bring: Prefect is there already."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _helm(namespace, f"helm install {name}") as config,
    ):
        alone = Path(shutil.copytree(chart, Path(folder, chart.name)))
        about = YAML().load((alone / "Chart.yaml").read_text(encoding="utf-8"))
        about.pop("dependencies", None)
        YAML().dump(about, alone / "Chart.yaml")
        config.install(alone, name, values, namespace=namespace)


def run_chart_tests(name: str, namespace: str) -> str:
    """``helm test --logs``: what the tests printed. Raises KindError if one failed."""
    with _helm(namespace, f"helm test {name}") as config:
        return str(config.test(name, timeout=120, logs=True)["logs"])


def uninstall(name: str, namespace: str) -> None:
    """``helm uninstall``."""
    with _helm(namespace, f"helm uninstall {name}") as config:
        config.uninstall(name, timeout=120)


@contextmanager
def _helm(namespace: str, what: str) -> Iterator[helm.Config]:
    try:
        with helm.Config(namespace=namespace) as config:
            yield config
    except helm.HelmError as error:
        raise KindError(f"{what} in {namespace}: {error}") from error
