"""What goes wrong inside a cluster: each a value that a test sets for a namespace or some Jobs.

The messages are the real ones (scheduler's ``FitError``, kubelet's ``image_manager`` and eviction,
the resource quota and ValidatingAdmissionPolicy admission plugins).
"""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, field
from typing import TypeVar

_FIT = "0/1 nodes are available: 1 {}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 {}."  # fmt: skip  # noqa: E501
_BUSY, _NEVER = (
    "No preemption victims found for incoming pod",
    "Preemption is not helpful for scheduling",
)

GPU_BUSY = _FIT.format("Insufficient nvidia.com/gpu", _BUSY)
"""The cluster has such a GPU; others use it."""
GPU_ABSENT = _FIT.format("Insufficient nvidia.com/gpu", _NEVER)
"""No node has ever had one."""
NO_SUCH_NODE = _FIT.format("node(s) didn't match Pod's node affinity/selector", _NEVER)
TAINTED = _FIT.format("node(s) had untolerated taint(s)", _NEVER)


@dataclass(frozen=True)
class QuotaExceeded:
    """A create of a Job is refused (403) by a ResourceQuota."""

    name: str = "fedcore"
    requested: str = "count/jobs.batch=1"
    used: str = "count/jobs.batch=2"
    limited: str = "count/jobs.batch=2"

    def __str__(self) -> str:
        return (
            f"exceeded quota: {self.name}, requested: {self.requested}, used: {self.used}, "
            f"limited: {self.limited}"
        )


@dataclass(frozen=True)
class Denied:
    """A create of a Job is refused by a ValidatingAdmissionPolicy (422, or 403 if it says so)."""

    policy: str = "fedcore-client"
    binding: str = "fedcore-client"
    message: str = "the image is not pinned by digest"
    code: int = 422

    def __str__(self) -> str:
        return (
            f"ValidatingAdmissionPolicy '{self.policy}' with binding '{self.binding}' "
            f"denied request: {self.message}"
        )


@dataclass(frozen=True)
class NoPods:
    """The Job is created, its pods are refused (pod quota, Pod Security): only events say why."""


@dataclass(frozen=True)
class Unschedulable:
    """The pod stays Pending; PodScheduled is False."""

    message: str = GPU_BUSY


@dataclass(frozen=True)
class ImageNotPullable:
    """The pod stays Pending: ErrImagePull, then ImagePullBackOff."""

    error: str = (
        "rpc error: code = NotFound desc = failed to pull and unpack image: "
        "failed to resolve reference: not found"
    )


@dataclass(frozen=True)
class CannotStart:
    """The container stays waiting for this reason (a missing Secret does so by itself)."""

    message: str = 'secret "fedcore-client" not found'
    reason: str = "CreateContainerConfigError"


@dataclass(frozen=True)
class OomKilled:
    """Killed for memory ``after`` seconds of running: exit code 137, reason OOMKilled."""

    after: float = 0.0


@dataclass(frozen=True)
class Evicted:
    """Evicted by the kubelet ``after`` seconds of running: phase Failed, reason Evicted.

    Under node pressure that is a DisruptionTarget, which a Job may ignore; for a full emptyDir
    (``SCRATCH_FULL``) it is not, and counts.
    """

    after: float = 0.0
    message: str = (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92Mi. "
    )
    disruption: bool = True


NODE_PRESSURE = Evicted()
SCRATCH_FULL = Evicted(0.0, 'Usage of EmptyDir volume "scratch" exceeds the limit "10Gi". ', False)


Scenario = (
    QuotaExceeded | Denied | NoPods | Unschedulable | ImageNotPullable | CannotStart | OomKilled
    | Evicted
)  # fmt: skip
S = TypeVar("S", bound=Scenario)


@dataclass(eq=False)
class Placed:
    """A scenario in force; as a context manager, until the end of the block."""

    scenario: Scenario
    namespace: str
    job: str
    times: int | None
    over: threading.Event = field(default_factory=threading.Event)

    def lift(self) -> None:
        """End it: what waits goes on (the image is there, a GPU is free)."""
        self.over.set()

    def __enter__(self) -> Placed:
        return self

    def __exit__(self, *_: object) -> None:
        self.lift()


class Scenarios:
    """Those in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._placed: list[Placed] = []

    def place(self, scenario: Scenario, namespace: str, job: str, times: int | None) -> Placed:
        """Set one for the Jobs named like ``job`` (a glob) in ``namespace`` (a glob)."""
        placed = Placed(scenario, namespace, job, times)
        with self._lock:
            self._placed = [old for old in self._placed if not old.over.is_set()] + [placed]
        return placed

    def take(self, kind: type[S], namespace: str, job: str) -> tuple[S, Placed] | None:
        """The scenario of this kind that meets the Job or pod; it counts as one time."""
        with self._lock:
            for placed in self._placed:
                if (
                    isinstance(placed.scenario, kind)
                    and not placed.over.is_set()
                    and placed.times != 0
                    and fnmatch.fnmatchcase(namespace, placed.namespace)
                    and fnmatch.fnmatchcase(job, placed.job)
                ):
                    placed.times = None if placed.times is None else placed.times - 1
                    return placed.scenario, placed
        return None
