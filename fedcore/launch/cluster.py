"""One Kubernetes API server, through the official client: the few requests fedcore makes, as JSON.

Objects stay plain dictionaries, as the manifests are: no model of a newer or older API version
stands between what the server said and what is read from it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.watch.watch import iter_resp_lines

from fedcore.errors import ConfigError

Object = dict[str, Any]

_CONNECT, _READ = 5.0, 30.0
_WATCH = 300  # seconds until the server ends a watch, and it is begun again where it stood
_GONE = 410
_MAX_DELAY = 10.0
_STRANGE = "the answer is not of a Kubernetes API server"
_CONNECTIONS = 1024  # two watches a site; a pool that is too small throws connections away


class ApiError(Exception):
    """The API server refused (``status``), or did not answer (``status`` 0)."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def temporary(self) -> bool:
        """Whether the same request may well be answered later."""
        return self.status in (0, 408, 429) or self.status >= 500


class Cluster:
    """The API server that a kubeconfig's context names, or the one this pod runs in."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        """Raises ConfigError if there is no such kubeconfig or context, and this is no pod."""
        settings = client.Configuration()
        try:
            if kubeconfig is None and context is None:
                config.load_config(client_configuration=settings)
            else:
                config.load_kube_config(
                    str(kubeconfig) if kubeconfig is not None else None,
                    context,
                    client_configuration=settings,
                )
        except config.ConfigException as error:
            where = kubeconfig or "no kubeconfig, and no service account of a pod"
            raise ConfigError(f"{where}: {error}") from error
        settings.retries = False  # the launcher asks again, and says so
        settings.connection_pool_maxsize = _CONNECTIONS
        settings.keep_alive = True
        self.address = settings.host
        api = client.ApiClient(settings)
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)

    def create_job(self, manifest: Object) -> Object:
        """Raises ApiError; 409 if there is a Job of that name."""
        namespace = manifest["metadata"]["namespace"]
        return _object(_ask(self._batch.create_namespaced_job, namespace, manifest))

    def job(self, namespace: str, name: str) -> Object:
        """Raises ApiError; 404 if there is none."""
        return _object(_ask(self._batch.read_namespaced_job, name, namespace))

    def jobs(self, namespace: str, selector: str) -> list[Object]:
        """The Jobs with these labels. Raises ApiError."""
        answer = _ask(self._batch.list_namespaced_job, namespace, label_selector=selector)
        items: list[Object] = _object(answer)["items"]
        return items

    def delete_job(self, namespace: str, name: str) -> None:
        """Remove the Job and its pods; what is gone already is no error. Raises ApiError."""
        try:
            _object(
                _ask(
                    self._batch.delete_namespaced_job,
                    name,
                    namespace,
                    propagation_policy="Background",  # without it, the pods would stay
                )
            )
        except ApiError as error:
            if error.status != 404:
                raise

    def log(self, namespace: str, pod: str, lines: int) -> list[str]:
        """The last lines of the pod's log. Raises ApiError."""
        answer = _ask(self._core.read_namespaced_pod_log, pod, namespace, tail_lines=lines)
        return _data(answer).decode(errors="replace").splitlines()

    def watch_jobs(self, namespace: str, selector: str) -> Mirror:
        """The namespace's Jobs with these labels, kept true."""
        return Mirror(self._batch.list_namespaced_job, namespace, selector)

    def watch_pods(self, namespace: str, selector: str) -> Mirror:
        """The namespace's pods with these labels, kept true."""
        return Mirror(self._core.list_namespaced_pod, namespace, selector)


class Mirror:
    """What a namespace has of one kind: listed once, then kept true by a watch.

    The watch is taken up where it broke; only when the server has forgotten that place (410) is
    everything listed again. ``kubernetes.informer`` does the same, but tries again without a
    pause when nobody answers.
    """

    def __init__(self, listing: Callable[..., Any], namespace: str, selector: str) -> None:
        self._listing = listing
        self._place = {"namespace": namespace, "label_selector": selector}
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._answer: urllib3.HTTPResponse | None = None
        self._version: str | None = None
        self.listed = threading.Event()
        """Set once ``objects`` is all that the namespace has."""
        self.problem: ApiError | None = None
        """Why it cannot be kept true at present."""
        self._thread = threading.Thread(target=self._run, name=f"watch-{namespace}", daemon=True)
        self._thread.start()

    def objects(self) -> list[Object]:
        """The objects as last seen."""
        with self._lock:
            return list(self._objects.values())

    def get(self, name: str) -> Object | None:
        """The object of that name as last seen."""
        with self._lock:
            return self._objects.get(name)

    def note(self, found: Object) -> None:
        """What its maker knows before the watch does."""
        with self._lock:
            self._objects.setdefault(found["metadata"]["name"], _slim(found))

    def stop(self) -> None:
        """End the watch; its thread ends with the read that it is in."""
        self._stopping.set()
        answer = self._answer
        connection = getattr(answer, "connection", None)
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float) -> None:
        """Wait for the thread, after ``stop``."""
        self._thread.join(timeout)

    def _run(self) -> None:
        delay = 0.0
        while not self._stopping.wait(delay):
            try:
                if self._version is None:
                    self._list()
                self._watch()
                delay = 0.1  # ended by the server, as watches are
            except ApiError as error:
                if error.status == _GONE:
                    self._version = None
                else:
                    self.problem = error
                delay = min(max(2 * delay, error.retry_after or 0.5), _MAX_DELAY)

    def _list(self) -> None:
        found = _object(_ask(self._listing, **self._place))
        try:
            objects = {item["metadata"]["name"]: _slim(item) for item in found["items"]}
            self._version = found["metadata"]["resourceVersion"]
        except (KeyError, TypeError) as error:
            raise ApiError(0, f"{_STRANGE}: no {error} in it") from error
        with self._lock:
            self._objects = objects
        self.problem = None
        self.listed.set()

    def _watch(self) -> None:
        """Follow the events until the server ends the watch. Raises ApiError if it breaks."""
        answer = _ask(
            self._listing,
            **self._place,
            watch=True,
            resource_version=self._version,
            allow_watch_bookmarks=True,
            timeout_seconds=_WATCH,
            _request_timeout=(_CONNECT, _WATCH + _READ),
        )
        self._answer, self.problem = answer, None
        try:
            for line in iter_resp_lines(answer):
                if line:
                    self._follow(json.loads(line))
        except (urllib3.exceptions.HTTPError, OSError, AttributeError, ValueError) as error:
            # AttributeError: http.client's, when stop() takes the socket from under a read
            raise ApiError(0, f"the watch broke: {error}") from error
        except (KeyError, TypeError) as error:
            raise ApiError(0, f"{_STRANGE}: no {error} in it") from error
        finally:
            self._answer = None
            answer.close()

    def _follow(self, event: Object) -> None:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(found.get("code", 0)), str(found.get("message", "the watch broke")))
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(found["metadata"]["name"], None)
            elif kind != "BOOKMARK":
                self._objects[found["metadata"]["name"]] = _slim(found)
        self._version = found["metadata"]["resourceVersion"]


def _slim(found: Object) -> Object:
    """What the launcher asks of a Job or pod: a twentieth of it, for a watch keeps every one."""
    kept = ("name", "labels", "annotations", "creationTimestamp", "deletionTimestamp")
    return {
        "metadata": {key: found["metadata"][key] for key in kept if key in found["metadata"]},
        "spec": {"suspend": found.get("spec", {}).get("suspend", False)},
        "status": found.get("status", {}),
    }


def _ask(function: Callable[..., Any], *args: Any, **kwargs: Any) -> urllib3.HTTPResponse:
    kwargs.setdefault("_request_timeout", (_CONNECT, _READ))
    try:
        answer: urllib3.HTTPResponse = function(*args, **kwargs, _preload_content=False)
    except ApiException as error:
        wait = str((error.headers or {}).get("Retry-After", ""))
        message = _message(str(error.body or error.reason))
        raise ApiError(
            int(error.status or 0), message, float(wait) if wait.isdigit() else None
        ) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiError(0, str(error)) from error
    return answer


def _message(body: str) -> str:
    """What a Status object says, or the body of whoever answered instead."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].strip()


def _object(answer: urllib3.HTTPResponse) -> Object:
    try:
        found: Object = json.loads(_data(answer))
    except ValueError as error:
        raise ApiError(0, f"{_STRANGE}: {error}") from error
    return found


def _data(answer: urllib3.HTTPResponse) -> bytes:
    """All of the answer; what is left unread would be taken for the next answer."""
    try:
        return answer.data
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiError(0, f"the answer broke off: {error}") from error
