"""A stand-in for a Kubernetes cluster: a real HTTP API on loopback, Jobs run as local processes.

    with KubeApi() as kube:
        kube.namespace("fedcore-north", config_maps={"fedcore-client": {"policy.yaml": …}},
                       secrets={"fedcore-client": {"exchange-access-key": …}})
        path = kube.kubeconfig(tmp_path / "kubeconfig")      # as the user `fedcore-server`
        launcher = KubernetesLauncher(…)                     # the official client, real requests
        kube.until(lambda: kube.job("fedcore-north", name), "Complete")

The Job's container is run by ``runner``: a ``ProcessRunner`` (the Job's own command, env and
volumes) or any callable ``(Container) -> exit code``, for tests without processes.

What goes wrong in the cluster is a scenario, in force until lifted or for ``times`` Jobs or pods:

    with kube.scenario(ImageNotPullable(), "fedcore-north"): …
    kube.scenario(OomKilled(), "fedcore-north", times=1)
    kube.scenario(NoPods(), "fedcore-north").lift()
    kube.kill(ns, pod)   kube.oom_kill(ns, pod)   kube.evict(ns, pod)   kube.drain(ns, pod)
    kube.exit(ns, pod)   # SIGKILL to the process alone
    kube.evict(ns, pod, SCRATCH_FULL)   # an eviction that counts as a failure

What goes wrong on the way is a fault, for ``times`` requests, ``seconds``, or until lifted:

    kube.fail(429, verb="create", resource="jobs", retry_after=1, times=2)
    kube.hang(verb="list", times=1)          # no answer until the client gives up
    kube.reset(times=1)                      # the connection breaks before it is done
    kube.lose_reply(verb="create", times=1)  # … after it is done
    kube.drop_watch(after=2, times=1)        # a stream cut in mid-event; kube.drop_watches() now
    kube.expire_watch(times=1)               # 410 as ERROR event; kube.expire_watches() now
    with kube.outage(): …                    # connection refused; the cluster goes on

Counts: ``kube.requests.count(verb, resource, namespace)``, ``kube.requests.by()``,
``kube.open_watches()``. ``kube.check()`` raises what the stand-in itself fell over; leaving the
block does so too.

Own code rather than kmock 0.8: that is an asyncio server without resourceVersions, label
selectors, 410, users or controllers, so that nearly all of this would have had to be built beside
it. Behaviour and messages are those of Kubernetes' source.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kube_access import SERVER, Access, Rules
from kube_api import Api, grace_of
from kube_container import Container, NotYet, Runner
from kube_faults import Fault, Faults, Kind, Requests
from kube_http import Cut, Server
from kube_jobs import JobController
from kube_kubelet import Fate, Kubelet
from kube_policy import held
from kube_process import ProcessRunner
from kube_scenarios import (
    GPU_ABSENT,
    GPU_BUSY,
    NO_SUCH_NODE,
    NODE_PRESSURE,
    SCRATCH_FULL,
    TAINTED,
    CannotStart,
    Denied,
    Evicted,
    ImageNotPullable,
    NoPods,
    OomKilled,
    Placed,
    QuotaExceeded,
    Scenario,
    Scenarios,
    Unschedulable,
)  # fmt: skip
from kube_status import CONFIG_MAPS, JOBS, NAMESPACES, PODS, SECRETS, ApiError, expired
from kube_store import Errors, Object, Store

__all__ = [
    "ADMIN", "GPU_ABSENT", "GPU_BUSY", "NODE_PRESSURE", "NO_SUCH_NODE", "SCRATCH_FULL",
    "SERVER", "TAINTED", "USER", "CannotStart",
    "Container", "Denied", "Evicted", "ImageNotPullable", "KubeApi", "NoPods", "NotYet",
    "OomKilled", "ProcessRunner", "QuotaExceeded", "Unschedulable",
]  # fmt: skip

USER = "fedcore-server"
ADMIN = "kubernetes-admin"
Data = Mapping[str, Mapping[str, str]]


class KubeApi:
    """The cluster. ``backoff``: seconds before a Job's second pod (10 in a real one, doubling).

    ``grace``: at most so many seconds from SIGTERM to SIGKILL. ``bookmarks``: seconds between two
    of a watch that allows them. ``history``: events remembered; a watch from before is too old.
    """

    def __init__(
        self, runner: Runner | None = None, *, backoff: float = 0.05, grace: float = 5.0,
        bookmarks: float = 60.0, history: int = 2000,
    ) -> None:  # fmt: skip
        self._root = Path(tempfile.mkdtemp(prefix="kube-"))
        self.store, self.access = Store(history), Access()
        self.requests, self._faults, self._scenarios = Requests(), Faults(), Scenarios()
        self._errors: Errors = []
        self._kubelet = Kubelet(
            self.store, self._scenarios, self._errors, runner or ProcessRunner(), self._root,
            grace,
        )  # fmt: skip
        self._jobs = JobController(self.store, self._scenarios, self._errors, backoff)
        self._api = Api(self.store, self.access, self._scenarios, self._kubelet.read_log)
        self._bookmarks = bookmarks
        self._server: Server | None = None
        self.port = 0
        self.access.allow(ADMIN, "*", {"*": "*"})
        self.start()

    def __enter__(self) -> KubeApi:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.check()

    def close(self) -> None:
        """End everything that runs."""
        self._faults.clear()
        if self._server is not None:
            self.stop()
        self._jobs.stop()
        self._kubelet.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def check(self) -> None:
        """Raise what the stand-in or a runner fell over, if anything."""
        if self._errors:
            raise self._errors[0]

    # the server

    @property
    def url(self) -> str:
        """Where the API is; the same after an outage."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, on the same port as before."""
        for attempt in range(50):
            try:
                self._server = Server(
                    self.port, self.store, self._api, self.access, self._faults,
                    self.requests, self._bookmarks, self._errors,
                )  # fmt: skip
            except OSError:
                if attempt == 49:
                    raise
                time.sleep(0.1)
            else:
                break
        assert self._server is not None
        self.port = self._server.server_port

    def stop(self) -> None:
        """Refuse connections, and break those there are. What runs in the cluster goes on."""
        if self._server is not None:
            self._server.stop()
        self._server = None

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """No API server for the length of the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def kubeconfig(
        self, path: Path, user: str = USER, *, namespace: str = "default", token: str | None = None
    ) -> Path:
        """Write one for this user, whom ``namespace`` or ``allow`` gives rights."""
        cluster = {"name": "stand-in", "cluster": {"server": self.url}}
        token = self.access.token(user) if token is None else token
        context = {"cluster": "stand-in", "user": user, "namespace": namespace}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [cluster], "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "stand-in", "context": context}],
        }  # fmt: skip
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    # what an administrator does

    def namespace(
        self, name: str, *, config_maps: Data | None = None, secrets: Data | None = None,
        user: str | None = USER, rules: Rules = SERVER,
    ) -> None:  # fmt: skip
        """Make a namespace in which ``user`` may do what ``rules`` say (by default: the server)."""
        self.store.create(NAMESPACES, {"metadata": {"name": name}, "status": {"phase": "Active"}})
        for title, data in (config_maps or {}).items():
            self.config_map(name, title, data)
        for title, data in (secrets or {}).items():
            self.secret(name, title, data)
        if user is not None:
            self.allow(user, name, rules)

    def allow(self, user: str, namespace: str, rules: Rules = SERVER) -> None:
        """Replace the user's rights there; ``*``: everywhere. ``{}`` takes all away."""
        self.access.allow(user, namespace, rules)

    def config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Make or replace one."""
        self._put(CONFIG_MAPS, namespace, name, dict(data))

    def secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Make or replace one."""
        coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self._put(SECRETS, namespace, name, coded)

    def _put(self, resource: Any, namespace: str, name: str, data: dict[str, str]) -> None:
        if self.store.update(resource, namespace, name, lambda obj: obj.update(data=data)) is None:
            meta = {"name": name, "namespace": namespace}
            self.store.create(resource, {"metadata": meta, "data": data})

    def unsuspend(self, namespace: str, job: str) -> None:
        """Admit a suspended Job, as Kueue does."""
        self.store.update(JOBS, namespace, job, lambda obj: obj["spec"].update(suspend=False))

    # what there is

    def job(self, namespace: str, name: str) -> Object | None:
        """A Job as the API shows it; None: there is none."""
        return self.store.find(JOBS, namespace, name)

    def jobs(self, namespace: str = "") -> list[Object]:
        """All of a namespace, or of all."""
        return self.store.list(JOBS, namespace)

    def pods(self, namespace: str = "", job: str | None = None, phase: str = "") -> list[Object]:
        """Those of a namespace, a Job, in a phase."""
        return [
            pod
            for pod in self.store.list(PODS, namespace)
            if job in (None, pod["metadata"].get("labels", {}).get("job-name"))
            and phase in ("", pod["status"]["phase"])
        ]

    def log(self, namespace: str, pod: str) -> str:
        """What the pod's container has written so far."""
        return (self._kubelet.read_log(namespace, pod) or b"").decode()

    def until(
        self, look: Callable[[], Any], condition: str | None = None, seconds: float = 30.0
    ) -> Any:
        """Wait until ``look`` gives something true (a Job with this condition) and return it."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found and (condition is None or held(found, condition)):
                return found
            self.check()
            assert time.monotonic() < deadline, f"did not happen in {seconds} s; last seen: {found}"
            time.sleep(0.01)

    def open_watches(self, namespace: str | None = None, resource: str | None = None) -> int:
        """Streams that are open now."""
        return len(self._server.watches(namespace, resource)) if self._server else 0

    # what goes wrong in the cluster

    def scenario(
        self, scenario: Scenario, namespace: str = "*", *, job: str = "*", times: int | None = None
    ) -> Placed:
        """Put it in force for the Jobs (a glob), and their pods, of a namespace (a glob)."""
        return self._scenarios.place(scenario, namespace, job, times)

    def exit(self, namespace: str, pod: str) -> None:
        """SIGKILL to the pod's process: exit code 137."""
        self._end(namespace, pod, Fate("Error"))

    def kill(self, namespace: str, pod: str) -> None:
        """``kubectl delete pod --force``: killed at once, and the object goes."""
        self._end(namespace, pod, Fate("Error"))
        with contextlib.suppress(ApiError):
            self.store.delete(PODS, namespace, pod, grace=0)

    def oom_kill(self, namespace: str, pod: str) -> None:
        """Out of memory."""
        self._end(namespace, pod, Fate("OOMKilled"))

    def evict(self, namespace: str, pod: str, how: Evicted = NODE_PRESSURE) -> None:
        """By the kubelet, for want of memory or with ``SCRATCH_FULL``: reason Evicted."""
        self._end(namespace, pod, Fate("Error", evicted=how))

    def drain(self, namespace: str, pod: str) -> None:
        """``kubectl drain``: a DisruptionTarget that is deleted, with its grace."""
        why = {
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }  # fmt: skip

        def mark(obj: Object) -> None:
            obj["status"].setdefault("conditions", []).append(why)

        found = self.store.update(PODS, namespace, pod, mark)
        if found is not None:
            self.store.delete(PODS, namespace, pod, grace=grace_of(found, None))

    def _end(self, namespace: str, pod: str, fate: Fate) -> None:
        life = self._kubelet.life(namespace, pod)
        assert life is not None, f"no pod {namespace}/{pod}"
        life.kill(fate)

    # what goes wrong on the way

    def fail(self, code: int, *, retry_after: int | None = None, **which: Any) -> Fault:
        """Answer with this code. ``which``: verb, resource, namespace, times, seconds."""
        return self._fault("status", code=code, retry_after=retry_after, **which)

    def hang(self, **which: Any) -> Fault:
        """Answer nothing until the client gives up or the fault is lifted."""
        return self._fault("hang", **which)

    def reset(self, **which: Any) -> Fault:
        """Break the connection, nothing done."""
        return self._fault("reset", **which)

    def lose_reply(self, **which: Any) -> Fault:
        """Do it, and break the connection instead of answering."""
        return self._fault("lost", **which)

    def drop_watch(self, *, after: int = 0, **which: Any) -> Fault:
        """Cut new watches in mid-event, after so many events."""
        return self._fault("drop", verb="watch", after=after, **which)

    def expire_watch(self, **which: Any) -> Fault:
        """Begin new watches with a 410 ERROR event."""
        return self._fault("gone", verb="watch", **which)

    def clear_faults(self) -> None:
        """Lift every fault."""
        self._faults.clear()

    def _fault(self, kind: Kind, **what: Any) -> Fault:
        return self._faults.add(Fault(kind, **what))

    def drop_watches(self, namespace: str | None = None) -> int:
        """Cut the open streams in mid-event; how many."""
        return self._tell_watches(namespace, Cut())

    def expire_watches(self, namespace: str | None = None) -> int:
        """Forget all events, and end the open streams with 410; how many."""
        self.store.compact()
        return self._tell_watches(namespace, expired(self.store.oldest - 1, self.store.oldest))

    def _tell_watches(self, namespace: str | None, what: BaseException) -> int:
        readers = self._server.watches(namespace) if self._server else []
        for reader in readers:
            reader.events.put(what)
        return len(readers)
