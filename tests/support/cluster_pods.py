"""Pods of the test image: made, waited for, and spoken to as ``kubectl exec`` does."""

from __future__ import annotations

from typing import Any

from cluster_api import Access, Object, wait_for
from kubernetes import client
from kubernetes.stream import stream

_CHUNK = 1 << 18


def pod(
    name: str,
    namespace: str,
    image: str,
    command: list[str],
    *,
    labels: dict[str, str] | None = None,
    env: list[Object] | None = None,
    volumes: dict[str, Object] | None = None,
    memory: str = "256Mi",
) -> Object:
    """A pod of the test image, as the level ``restricted`` wants it. ``volumes``: path → source."""
    volumes = volumes or {}
    names = {path: path.strip("/").replace("/", "-") for path in volumes}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "workingDir": next(iter(volumes), "/"),
                    "env": env or [],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi"},
                        "limits": {"memory": memory},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": names[p], "mountPath": p} for p in volumes],
                }
            ],
            "volumes": [{"name": names[path], **source} for path, source in volumes.items()],
        },
    }


def running(admin: Access, namespace: str, name: str) -> Object:
    """The pod, once its container runs. Fails early where it never will."""

    def look() -> Object | None:
        found = admin.get("Pod", name, namespace)
        assert found is not None, f"pod {name} is gone"
        status = found["status"]
        assert status["phase"] not in ("Failed", "Succeeded"), admin.log(namespace, name)
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            assert waiting.get("reason") not in ("ImagePullBackOff", "ErrImageNeverPull"), waiting
        return found if status["phase"] == "Running" else None

    return wait_for(f"pod {name} in {namespace} runs", look, 180)


def execute(
    admin: Access, namespace: str, name: str, command: list[str], given: bytes | None = None
) -> str:
    """What the command in the pod wrote. Fails if it wrote to stderr."""
    core: Any = client.CoreV1Api(client.ApiClient(admin.api.configuration))
    session = stream(
        core.connect_get_namespaced_pod_exec,
        name,
        namespace,
        command=command,
        stdin=given is not None,
        stdout=True,
        stderr=True,
        tty=False,
        binary=True,
        _preload_content=False,
    )
    for start in range(0, len(given or b""), _CHUNK):
        session.write_stdin(given[start : start + _CHUNK])  # type: ignore[index]
    session.run_forever(timeout=120)
    said, errors = session.read_stdout(timeout=1), session.read_stderr(timeout=1)
    assert not errors, errors
    return bytes(said or b"").decode()
