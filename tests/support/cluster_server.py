"""The coordinator in the cluster: a Prefect server in a pod, and the server's chart."""

from __future__ import annotations

import configparser
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from charts import SERVER as SERVER_CHART
from cluster_api import Access, Object, wait_for
from cluster_forward import Forward
from cluster_pods import pod, running
from cluster_s3 import PodS3
from cluster_sites import Site, Values

from fedcore.local.credentials import EXCHANGE, SERVER

PORT = 4200
ACCOUNT = "fedcore-server"
_QUIET = {
    "HOME": "/data",
    "PREFECT_HOME": "/data",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


class PodPrefect:
    """``url_here`` and ``url_in_cluster``: of its API."""

    def __init__(self, url_here: str, url_in_cluster: str) -> None:
        self.url_here = url_here
        self.url_in_cluster = url_in_cluster

    def start_run(self, run_id: str) -> str:
        """Ask the deployment for a run, as its UI does. Returns the flow run's id."""
        deployment = self._ask("GET", "/deployments/name/train/train")
        parameters = {**deployment["parameters"], "run_id": run_id}
        asked = {"parameters": parameters, "idempotency_key": run_id}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        return str(self._ask("POST", path, asked)["id"])

    def state_of(self, flow_run: str) -> str:
        """E.g. ``COMPLETED``."""
        return str(self._ask("GET", f"/flow_runs/{flow_run}")["state"]["type"])

    def cancel(self, flow_run: str) -> None:
        """As its UI does."""
        wanted = {"state": {"type": "CANCELLING"}, "force": False}
        self._ask("POST", f"/flow_runs/{flow_run}/set_state", wanted)

    def _ask(self, method: str, path: str, body: Object | None = None) -> Any:
        """The answer, once there is one.

        404 until the coordinator has offered its flow, and 503 while Prefect's SQLite is busy.
        """

        def answered() -> httpx.Response | None:
            try:
                answer = httpx.request(method, self.url_here + path, json=body, timeout=60)
            except httpx.TransportError:  # a forwarded connection that broke
                return None
            return None if answer.status_code in (404, 503) else answer

        return wait_for(f"Prefect answers {path}", answered, 240).raise_for_status().json()


def start_prefect(admin: Access, namespace: str, image: str) -> None:
    """Make the pod of a Prefect server."""
    made = pod(
        "prefect",
        namespace,
        image,
        ["prefect", "server", "start", "--host", "0.0.0.0", "--port", str(PORT)],
        env=[{"name": name, "value": value} for name, value in _QUIET.items()],
        volumes={"/data": {"emptyDir": {}}, "/tmp": {"emptyDir": {}}},
        memory="1Gi",
    )
    admin.create(made)


@contextmanager
def prefect_server(admin: Access, namespace: str) -> Iterator[PodPrefect]:
    """The Prefect server of that pod, reached from here and from pods."""
    address = running(admin, namespace, "prefect")["status"]["podIP"]
    host = f"[{address}]" if ":" in address else address
    with Forward(admin.api, namespace, "prefect", PORT) as forward:
        here = f"http://127.0.0.1:{forward.port}/api"
        wait_for("Prefect answers", lambda: _found_at(f"{here}/health"), 300)
        yield PodPrefect(here, f"http://{host}:{PORT}/api")


def server_chart(folder: Path) -> Path:
    """The server's chart, without Prefect's own, which has to be fetched and is not wanted here."""
    path = folder / "fedcore-server"
    if not path.exists():
        shutil.copytree(SERVER_CHART, path)
        file = path / "Chart.yaml"
        file.write_text(file.read_text().partition("\ndependencies:")[0] + "\n")
    return path


def server_secrets(admin: Access, namespace: str, s3: PodS3, key: Path) -> None:
    """The two Secrets that the server's chart wants to be there."""
    keys = s3.credential(SERVER)
    profiles = configparser.ConfigParser()
    profiles["server"] = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
    }
    text = io.StringIO()
    profiles.write(text)
    for name, file, content in (
        ("fedcore-signing-key", "signing-key.pem", key.read_text()),
        ("fedcore-credentials", "credentials", text.getvalue()),
    ):
        admin.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": {file: content},
            }
        )


def server_values(
    image: str, plan: Path, s3: PodS3, prefect: str, sites: dict[str, Site]
) -> Values:
    """Values of the server's chart for sites of the same cluster."""
    here: dict[str, Any] = {
        name: {
            "kubernetes": {
                "namespace": site.namespace,
                "job": site.job.model_dump(mode="json", exclude_defaults=True),
            }
        }
        for name, site in sites.items()
    }
    return {
        "image": image,
        "requireDigest": "@sha256:" in image,
        "plan": plan.read_text(),
        "federation": {
            "exchange": {"bucket": EXCHANGE, "endpoint": s3.endpoint_in_cluster},
            "profile": "server",
            "launch": "kubernetes",
            "sites": here,
        },
        "prefect": {"url": prefect},
        "resources": {
            "requests": {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "2Gi"},
        },
        "persistence": {"size": "1Gi"},
    }


def server_pod(admin: Access, namespace: str, *, other_than: str = "") -> str:
    """The coordinator's pod, once it asks Prefect for work."""

    def look() -> Object | None:
        for found in admin.list("Pod", namespace, "app.kubernetes.io/name=fedcore-server"):
            conditions = found["status"].get("conditions") or ()
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            if ready and found["metadata"]["name"] != other_than:
                return found
        return None

    return str(wait_for("the coordinator is ready", look, 240)["metadata"]["name"])


def _found(answer: httpx.Response) -> Any:
    return answer.json() if answer.status_code == 200 else None


def _found_at(url: str) -> Any:
    try:
        return _found(httpx.get(url, timeout=10))
    except httpx.TransportError:
        return None
