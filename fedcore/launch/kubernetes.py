"""Clients as Kubernetes Jobs, each in its site's own namespace.

Nothing here waits: ``ensure`` and ``poll`` look at what the watches have seen, take the next step
and return, so that one cluster that is out of reach does not hold up the other sites.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcore.config.job import KubernetesSite
from fedcore.errors import ServiceUnavailable
from fedcore.launch import diagnosis, manifest
from fedcore.launch.api import RUNNING, WorkOrder
from fedcore.launch.cluster import ApiError, Cluster, Mirror, Object
from fedcore.launch.diagnosis import Finding
from fedcore.records import ClientStatus

log = logging.getLogger("fedcore.run")

_LOG_LINES = 40
_MAX_DELAY = 10.0
_MAX_ATTEMPTS = 20
_GOODBYE = 5.0  # seconds for the watches' threads to end
_WORTH_TELLING = 3.0  # seconds: every pod is late for a moment


@dataclass
class _Client:
    """The client of one site: the order it is for, and its Job once there is one."""

    order: WorkOrder
    job: str | None = None
    attempt: int = 0
    status: ClientStatus = RUNNING
    pending_since: float | None = None
    delay: float = 0.0
    next_try: float = 0.0
    told: set[str] = field(default_factory=set)
    """The pods whose log was shown."""


class KubernetesLauncher:
    """``sites``: where each site's Jobs run. Only the server's thread may use one.

    Raises ConfigError if a site's kubeconfig or context does not exist.
    """

    def __init__(self, sites: Mapping[str, KubernetesSite]) -> None:
        clusters: dict[tuple[Path | None, str | None], Cluster] = {}
        self._places: dict[str, _Place] = {}
        for site, where in sites.items():
            address = (where.kubeconfig, where.context)
            if address not in clusters:
                clusters[address] = Cluster(*address)
            self._places[site] = _Place(site, where, clusters[address])
        self._clients: dict[str, _Client] = {}

    def ensure(self, order: WorkOrder) -> None:
        client = self._clients.get(order.site)
        place = self._places[order.site]
        place.watch()
        if client is not None and client.order.run_id == order.run_id and place.alive(client.job):
            client.order = order  # it is warm, and finds the order by itself
            return
        self._clients[order.site] = client = _Client(order)
        self._start(client, place)

    def poll(self, site: str) -> ClientStatus:
        client = self._clients.get(site)
        if client is None or client.status.state == "failed":
            return RUNNING if client is None else client.status
        place = self._places[site]
        if client.job is None:
            self._start(client, place)
        else:
            client.status = self._look(client, client.job, place)
        return client.status

    def cancel(self, site: str, run_id: str) -> None:
        """Delete the run's Jobs at the site. Raises ServiceUnavailable if that is not possible."""
        self._clients.pop(site, None)
        place = self._places[site]
        try:
            place.delete_run(run_id)
        except ApiError as error:
            raise ServiceUnavailable(
                f"site {site}: the Jobs of run {run_id} in namespace {place.where.namespace} were "
                f"not deleted: {error.message}"
            ) from error

    def close(self) -> None:
        """End the watches. The Jobs stay: they belong to the run, not to this process."""
        mirrors = [mirror for place in self._places.values() for mirror in place.mirrors()]
        for mirror in mirrors:
            mirror.stop()
        deadline = time.monotonic() + _GOODBYE
        for mirror in mirrors:
            mirror.join(max(0.0, deadline - time.monotonic()))

    def _start(self, client: _Client, place: _Place) -> None:
        """Take up the run's Job if there is one at work, or create it; if not now, then later."""
        if time.monotonic() < client.next_try:
            return
        try:
            if not place.listed():
                client.status = ClientStatus("running", place.trouble())
            else:
                client.job = place.adopt(client.order) or self._create(client, place)
                client.status, client.delay, client.pending_since = RUNNING, 0.0, None
        except ApiError as error:
            self._postpone(client, place, error)

    def _create(self, client: _Client, place: _Place) -> str | None:
        built = manifest.job(place.where.job, place.where.namespace, client.order, client.attempt)
        try:
            place.create(built)
        except ApiError as error:
            if error.status != 409:
                raise
            found = place.read(built["metadata"]["name"])
            if found is None or _over(found):  # of an earlier attempt: that name is used up
                client.attempt += 1
                if client.attempt > _MAX_ATTEMPTS:
                    raise ApiError(409, f"{_MAX_ATTEMPTS} Jobs of this order ended") from error
                return None
            same = found["metadata"].get("annotations", {}).get(manifest.DIGEST_ANNOTATION)
            if same != built["metadata"]["annotations"][manifest.DIGEST_ANNOTATION]:
                raise ApiError(
                    409,
                    f"there is another Job {built['metadata']['name']} already, made from other "
                    "settings; delete it, or keep the settings within a run",
                ) from error
        name: str = built["metadata"]["name"]
        log.info("site %s: Job %s in namespace %s", place.site, name, place.where.namespace)
        return name

    def _postpone(self, client: _Client, place: _Place, error: ApiError) -> None:
        if error.temporary:
            reason = f"the API server at {place.address} does not answer ({error.message[:200]})"
            client.status = ClientStatus("running", reason)
        else:
            found = diagnosis.of_refusal(error.status, error.message, place.where)
            if not found.pending or self._patience_is_over(client, place):
                client.status = ClientStatus("failed", found.reason, permanent=True)
                return
            client.status = ClientStatus("running", found.reason)
        client.delay = min(max(2 * client.delay, error.retry_after or 0.5), _MAX_DELAY)
        client.next_try = time.monotonic() + client.delay

    def _look(self, client: _Client, name: str, place: _Place) -> ClientStatus:
        """How the Job of that name is; one that is in vain is ended."""
        job, pods = place.seen(name)
        self._tell_failures(client, pods, place)
        if job is None:
            return ClientStatus("failed", f"its Job {name} was deleted")
        found = diagnosis.of_job(job, pods, place.where)
        if not found.pending:
            client.pending_since = None
        elif self._patience_is_over(client, place):
            found = Finding(found.reason, hopeless=True, pod=found.pod)
        if not (found.ended or found.hopeless):
            passing = found.pending and self._waited(client) < _WORTH_TELLING
            return ClientStatus("running", place.trouble() or ("" if passing else found.reason))
        if not found.hopeless:  # ended as clients do; most likely its reply is there by now
            return ClientStatus("failed", found.reason)
        if not found.ended:
            place.delete(name)
        last = place.last_line(found.pod)
        reason = found.reason if last is None else f"{found.reason}: {last}"
        return ClientStatus("failed", reason, permanent=True)

    @staticmethod
    def _waited(client: _Client) -> float:
        """For how long the client has been pending, from the first time this is asked."""
        now = time.monotonic()
        client.pending_since = client.pending_since or now
        return now - client.pending_since

    def _patience_is_over(self, client: _Client, place: _Place) -> bool:
        return self._waited(client) >= place.where.job.pending_seconds

    @staticmethod
    def _tell_failures(client: _Client, pods: list[Object], place: _Place) -> None:
        """The log of each pod that failed, once, its last line first: there the error is."""
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod.get("status", {}).get("phase") != "Failed" or name in client.told:
                continue
            client.told.add(name)
            lines = place.log(name)
            log.warning(
                "site %s: pod %s failed; its log, last line first:\n%s",
                place.site,
                name,
                "\n".join(reversed(lines)) or "(nothing)",
            )


class _Place:
    """A site's namespace: what the watches see there, and the few requests made of it."""

    def __init__(self, site: str, where: KubernetesSite, cluster: Cluster) -> None:
        self.site = site
        self.where = where
        self.address = cluster.address
        self._cluster = cluster
        self._jobs: Mirror | None = None
        self._pods: Mirror | None = None
        self._logs: dict[str, list[str]] = {}

    def watch(self) -> None:
        """Begin to watch, if that has not begun."""
        if self._jobs is None:
            selector = f"{manifest.SITE_LABEL}={manifest.label(self.site)}"
            self._jobs = self._cluster.watch_jobs(self.where.namespace, selector)
            self._pods = self._cluster.watch_pods(self.where.namespace, selector)

    def mirrors(self) -> list[Mirror]:
        """The watches that have begun."""
        return [mirror for mirror in (self._jobs, self._pods) if mirror is not None]

    def listed(self) -> bool:
        """Whether it is known which Jobs there are. Raises ApiError if it cannot become so."""
        mirrors = self.mirrors()
        for mirror in mirrors:
            if mirror.problem is not None and not mirror.problem.temporary:
                raise mirror.problem
        return bool(mirrors) and all(mirror.listed.is_set() for mirror in mirrors)

    def trouble(self) -> str:
        """What keeps the watches from seeing, if anything does."""
        for mirror in self.mirrors():
            if mirror.problem is not None:
                return (f"the API server at {self.address} does not answer "
                        f"({mirror.problem.message[:200]})")  # fmt: skip
        return ""

    def seen(self, name: str) -> tuple[Object | None, list[Object]]:
        """The Job and its pods, oldest first."""
        assert self._jobs is not None and self._pods is not None  # noqa: S101, PT018  # watch()
        owner = "batch.kubernetes.io/job-name"
        pods = [p for p in self._pods.objects() if p["metadata"]["labels"].get(owner) == name]
        return self._jobs.get(name), sorted(pods, key=_born)

    def alive(self, name: str | None) -> bool:
        """Whether that Job is there and not over."""
        job = self._jobs.get(name) if self._jobs is not None and name is not None else None
        return job is not None and not _over(job)

    def adopt(self, order: WorkOrder) -> str | None:
        """The run's newest Job that is still at work, made by whoever."""
        run = manifest.label(order.run_id)
        jobs = [] if self._jobs is None else self._jobs.objects()
        ours = [j for j in jobs if j["metadata"]["labels"].get(manifest.RUN_LABEL) == run]
        found = sorted((job for job in ours if not _over(job)), key=_born)
        return str(found[-1]["metadata"]["name"]) if found else None

    def create(self, built: Object) -> None:
        """Raises ApiError."""
        created = self._cluster.create_job(built)
        if self._jobs is not None:
            self._jobs.note(created)

    def read(self, name: str) -> Object | None:
        """The Job as the server has it now; None if there is none. Raises ApiError."""
        try:
            return self._cluster.job(self.where.namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def delete(self, name: str) -> None:
        """Best effort: a Job that stays ends by its own deadline."""
        try:
            self._cluster.delete_job(self.where.namespace, name)
        except ApiError as error:
            log.warning("site %s: Job %s was not deleted: %s", self.site, name, error.message)

    def delete_run(self, run_id: str) -> None:
        """Delete every Job of the run. Raises ApiError."""
        selector = (f"{manifest.RUN_LABEL}={manifest.label(run_id)},"
                    f"{manifest.SITE_LABEL}={manifest.label(self.site)}")  # fmt: skip
        for job in self._cluster.jobs(self.where.namespace, selector):
            self._cluster.delete_job(self.where.namespace, job["metadata"]["name"])

    def log(self, pod: str) -> list[str]:
        """The end of the pod's log, read once; nothing if it cannot be read."""
        if pod not in self._logs:
            try:
                self._logs[pod] = self._cluster.log(self.where.namespace, pod, _LOG_LINES)
            except ApiError as error:  # its pod is gone, or never began
                log.info("site %s: no log of pod %s: %s", self.site, pod, error.message)
                return []
        return self._logs[pod]

    def last_line(self, pod: str | None) -> str | None:
        """What the client said last."""
        lines = [line for line in self.log(pod) if line.strip()] if pod is not None else []
        return lines[-1].strip() if lines else None


def _over(job: Object) -> bool:
    """Whether the Job is finished, or being deleted."""
    conditions = job.get("status", {}).get("conditions") or ()
    finished = any(
        c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions
    )
    return finished or "deletionTimestamp" in job["metadata"]


def _born(found: Object) -> str:
    return str(found["metadata"].get("creationTimestamp", ""))
