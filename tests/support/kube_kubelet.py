"""Scheduler and kubelet: one thread leads each pod from Pending to its end and removes it."""

from __future__ import annotations

import itertools
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kube_container import Container, NotYet, Runner, StartError, container
from kube_scenarios import (
    CannotStart,
    Evicted,
    ImageNotPullable,
    OomKilled,
    Placed,
    Scenarios,
    Unschedulable,
)  # fmt: skip
from kube_status import PODS
from kube_store import Errors, Event, Events, Object, Store, now

_LOOK = 0.1
_KILLED = 137
_START_ERROR = 128


@dataclass(frozen=True)
class Fate:
    """Why a container was ended from outside, as its status will say."""

    reason: str
    message: str | None = None
    evicted: Evicted | None = None


class Kubelet:
    """Runs pods with ``runner``; ``grace`` caps the seconds between SIGTERM and SIGKILL.

    ``root``: a folder for logs and volumes. A pod's part goes with the pod.
    """

    def __init__(
        self, store: Store, scenarios: Scenarios, errors: Errors, runner: Runner, root: Path,
        grace: float,
    ) -> None:  # fmt: skip
        self.store, self.scenarios, self.runner = store, scenarios, runner
        self.root, self.grace, self.errors = root, grace, errors
        self._events: Events = queue.SimpleQueue()
        self._reader = store.watch(PODS, "", None, self._events)
        self._lives: dict[str, Life] = {}
        self._thread = threading.Thread(target=self._run, daemon=True, name="kube-kubelet")
        self._thread.start()

    def stop(self) -> None:
        """Kill what runs; returns when it is gone."""
        self.store.unwatch(self._reader)
        self._events.put(None)
        self._thread.join()
        lives = list(self._lives.values())
        for life in lives:
            life.kill(Fate("Error"))
            life.left.set()
        for life in lives:
            life.join(10)

    def life(self, namespace: str, name: str) -> Life | None:
        """The thread that leads this pod."""
        pod = self.store.find(PODS, namespace, name)
        return None if pod is None else self._lives.get(pod["metadata"]["uid"])

    def read_log(self, namespace: str, name: str) -> bytes | None:
        """What the pod's container has written; None before it has started."""
        life = self.life(namespace, name)
        if life is None or not life.started.is_set():
            return None
        log = life.folder / "log"
        return log.read_bytes() if log.exists() else b""

    def _run(self) -> None:
        while isinstance(event := self._events.get(), Event):
            uid = event.object["metadata"]["uid"]
            if event.kind == "ADDED":
                self._lives[uid] = life = Life(self, event.object)
                life.start()
            elif event.kind == "DELETED":
                self._lives.pop(uid).remove()
            elif "deletionTimestamp" in event.object["metadata"]:
                self._lives[uid].end(event.object["metadata"]["deletionGracePeriodSeconds"])


class Life(threading.Thread):
    """One pod's."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        meta = pod["metadata"]
        super().__init__(daemon=True, name=f"kube-pod-{meta['name']}")
        self._kubelet, self._pod = kubelet, pod
        self._place = (meta["namespace"], meta["name"])
        self._job = meta.get("labels", {}).get("job-name", meta["name"])
        self.folder = kubelet.root / meta["uid"]
        self.started, self.left = threading.Event(), threading.Event()
        self._container: Container | None = None
        self._fate: Fate | None = None
        self._deadline: threading.Timer | None = None
        self._over = threading.Event()

    def run(self) -> None:
        """From scheduling to the last status."""
        try:
            if self._schedule() and self._prepare():
                code = self._execute()
                self._finish(code)
            else:
                self._change(_give_up)
        except Exception as error:  # a thread's end would only be silence
            self._kubelet.errors.append(error)
            self._finish(1)
        self._over.set()
        self._change(_confirm)

    # what comes from outside

    def kill(self, fate: Fate) -> None:
        """SIGKILL to the container."""
        self._fate = self._fate or fate
        if self._container is not None:
            self._container.kill()

    def end(self, grace: int) -> None:
        """The pod is being deleted: SIGTERM, and SIGKILL after ``grace`` seconds."""
        self.left.set()
        if self._over.is_set():
            self._change(_confirm)
        if self._container is None:
            return
        self._container.stopping.set()
        seconds = min(float(grace), self._kubelet.grace)
        if self._deadline is None or seconds == 0:
            self._deadline = threading.Timer(seconds, self._container.kill)
            self._deadline.daemon = True
            self._deadline.start()

    def remove(self) -> None:
        """The object is gone: so goes what is left of it."""
        self.left.set()
        if self._container is not None:
            self._container.kill()
        if self._deadline is not None:
            self._deadline.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    # the stages; each says whether there is a next one

    def _schedule(self) -> bool:
        if (found := self._met(Unschedulable)) is not None:
            why = {"reason": "Unschedulable", "message": found[0].message}
            self._set(lambda status: _condition(status, "PodScheduled", "False", why))
            if not self._await(found[1]):
                return False

        def placed(pod: Object) -> None:
            pod["spec"] = {**pod["spec"], "nodeName": "node-1"}
            pod["status"] |= {"startTime": now(), "hostIP": "127.0.0.1"}
            for kind in ("PodScheduled", "Initialized"):
                _condition(pod["status"], kind, "True")
            names = [spec["name"] for spec in pod["spec"]["containers"]]
            why = {"reason": "ContainersNotReady",
                   "message": f"containers with unready status: [{' '.join(names)}]"}  # fmt: skip
            for kind in ("Ready", "ContainersReady"):
                _condition(pod["status"], kind, "False", why)
            _waiting(pod, "ContainerCreating")

        return self._change(placed)

    def _prepare(self) -> bool:
        if (image := self._met(ImageNotPullable)) is not None:
            name, error = self._pod["spec"]["containers"][0].get("image", ""), image[0].error
            again = f'Back-off pulling image "{name}": ErrImagePull: {error}'
            if not self._await(image[1], ("ErrImagePull", error), ("ImagePullBackOff", again)):
                return False
        if (start := self._met(CannotStart)) is not None and not self._await(
            start[1], (start[0].reason, start[0].message)
        ):
            return False
        return self._resolve()

    def _resolve(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        while not self.left.is_set():
            try:
                self._container = container(self._pod, self._kubelet.store, self.folder)
            except NotYet as error:
                self._change(partial(_waiting, reason=error.reason, message=str(error)))
                self.left.wait(_LOOK)
            else:
                return True
        return False

    def _execute(self) -> int:
        running = self._container
        assert running is not None

        def up(pod: Object) -> None:
            pod["status"]["phase"] = "Running"
            _container_status(pod, {"running": {"startedAt": now()}}, True)
            for kind in ("Ready", "ContainersReady"):
                _condition(pod["status"], kind, "True")

        self.started.set()
        self._change(up)
        if self.left.is_set():  # deleted in the very moment of starting
            running.stopping.set()
        ending: threading.Timer | None = None
        for kind, fate in _ENDINGS:
            if (found := self._met(kind)) is not None:
                if found[0].after == 0:
                    self.kill(fate(found[0]))
                    return _KILLED
                ending = threading.Timer(found[0].after, self.kill, [fate(found[0])])
                ending.start()
        try:
            return self._kubelet.runner(running)
        except StartError as error:
            self._fate = Fate("StartError", message=str(error))
            return _START_ERROR
        finally:
            if ending is not None:
                ending.cancel()

    def _finish(self, code: int) -> None:
        """Tell how the container ended."""
        fate = self._fate
        if self._container is not None and self._container.killed.is_set():
            code = _KILLED
        reason = fate.reason if fate else "Error" if code else "Completed"
        message = {"message": fate.message} if fate and fate.message else {}

        def ended(pod: Object) -> None:
            state = {"exitCode": code, "reason": reason, "finishedAt": now(), **message}
            _container_status(pod, {"terminated": state}, False)
            why = {"reason": "PodCompleted" if code == 0 else "PodFailed"}
            for kind in ("Ready", "ContainersReady"):
                _condition(pod["status"], kind, "False", why)

        def over(pod: Object) -> None:
            status = pod["status"]
            status["phase"] = "Succeeded" if code == 0 else "Failed"
            if fate is not None and fate.evicted is not None:
                status |= {"reason": "Evicted", "message": fate.evicted.message}
                why = {"reason": "TerminationByKubelet", "message": fate.evicted.message}
                if fate.evicted.disruption:
                    _condition(status, "DisruptionTarget", "True", why)

        self._change(ended)  # the kubelet tells of the container first, then of the pod
        self._change(over)

    def _met(self, kind: type[Any]) -> tuple[Any, Placed] | None:
        return self._kubelet.scenarios.take(kind, self._place[0], self._job)

    def _await(self, placed: Placed, *states: tuple[str, str]) -> bool:
        """Wait, in these states in turn, until the scenario is lifted; False: deleted before."""
        turns = itertools.cycle(states)
        while not placed.over.is_set():
            for reason, message in itertools.islice(turns, 1):
                self._change(partial(_waiting, reason=reason, message=message))
            if self.left.wait(_LOOK):
                return False
        return not self.left.is_set()

    def _change(self, change: Callable[[Object], Any]) -> bool:
        return self._kubelet.store.update(PODS, *self._place, change) is not None

    def _set(self, change: Callable[[Object], Any]) -> bool:
        return self._change(lambda pod: change(pod["status"]))


_ENDINGS: tuple[tuple[type[Any], Callable[[Any], Fate]], ...] = (
    (OomKilled, lambda _: Fate("OOMKilled")),
    (Evicted, lambda evicted: Fate("Error", evicted=evicted)),
)


def _give_up(pod: Object) -> None:
    """It is deleted before it ever ran."""
    pod["status"]["phase"] = "Failed"


def _confirm(pod: Object) -> None:
    """Nothing of a pod that is being deleted runs any more."""
    if "deletionTimestamp" in pod["metadata"]:
        pod["metadata"]["deletionGracePeriodSeconds"] = 0


def _condition(status: Object, kind: str, value: str, why: dict[str, str] | None = None) -> None:
    others = [c for c in status.get("conditions", ()) if c["type"] != kind]
    new = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": now()}
    status["conditions"] = [*others, new | (why or {})]


def _waiting(pod: Object, reason: str, message: str = "") -> None:
    why = {"message": message} if message else {}
    _container_status(pod, {"waiting": {"reason": reason, **why}}, False)


def _container_status(pod: Object, state: Object, ready: bool) -> None:
    spec = pod["spec"]["containers"][0]
    if "terminated" in state:  # a container that ran keeps its start
        old = (pod["status"].get("containerStatuses") or [{"state": {}}])[0]["state"]
        state["terminated"]["startedAt"] = old.get("running", {}).get("startedAt", now())
    pod["status"]["containerStatuses"] = [
        {
            "name": spec["name"], "image": spec.get("image", ""), "imageID": "",
            "state": state, "lastState": {}, "ready": ready, "started": ready, "restartCount": 0,
        }
    ]  # fmt: skip
