"""How many processes fit: what this one may use, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cpus(quota: Path = _QUOTA) -> int:
    """Whole CPUs that this process may use, at least 1: its affinity, and its pod's limit.

    A Job with ``cpu: 2`` on a node of 64 sees 64; what it may use is in the cgroup (version 2).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        most, period = quota.read_text(encoding="ascii").split()
        limit = int(most) // int(period)
    except (OSError, ValueError):  # no cgroup of version 2, or "max"
        return allowed or 1
    return max(1, min(allowed or 1, limit))
