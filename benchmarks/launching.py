"""500 sites on Kubernetes: requests per site and round, and memory over the rounds.

The cluster is the tests' stand-in, a real HTTP API server in this process; the clients are threads
that do nothing. Measured is what the launcher asks of the API server, and how much the process
grows from the first round to the last; the stand-in's own objects are in that figure.
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from kube import Container, KubeApi
from launching import CONFIG, KEYS, order, settings

from fedcore.launch.kubernetes import KubernetesLauncher

SITES, ROUNDS = 500, 4
GOAL_REQUESTS = 4.0
GOAL_GROWTH = 1.05

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """``memory``: resident bytes after each round."""

    requests_per_site_and_round: float
    jobs: int
    memory: list[int]
    seconds: float


def main(results: list[Row]) -> list[Row]:
    """Append the rows of warm clients, and of one Job an order."""
    rows = []
    for warm, name in ((True, "warm"), (False, "one-job-an-order")):
        with tempfile.TemporaryDirectory() as folder:
            measured = launch_rounds(Path(folder), sites=SITES, rounds=ROUNDS, warm=warm)
        asked = measured.requests_per_site_and_round
        growth = measured.memory[-1] / measured.memory[0]
        rows += [
            _row(f"launch.{SITES}-sites.{name}.requests-per-site-and-round", asked, GOAL_REQUESTS),
            _row(f"launch.{SITES}-sites.{name}.memory-growth", growth, GOAL_GROWTH, "ratio"),
            _row(f"launch.{SITES}-sites.{name}.seconds-per-round", measured.seconds / ROUNDS,
                 None, "s"),
        ]  # fmt: skip
    results.extend(rows)
    return rows


def launch_rounds(folder: Path, *, sites: int, rounds: int, warm: bool) -> Measured:
    """Two orders a round to every site, as a run gives them, each waited for."""

    def client(container: Container) -> int:
        if warm:
            container.stopping.wait(3600)
        return 0

    names = [f"site-{number:03}" for number in range(sites)]
    memory, begun = [], time.perf_counter()
    with KubeApi(runner=client) as kube:
        for site in names:
            kube.namespace(f"fedcore-{site}", config_maps=CONFIG, secrets=KEYS)
        config = kube.kubeconfig(folder / "kubeconfig")
        job = {"pending_seconds": 3600, "ttl_seconds": 600 if warm else 1}
        launcher = KubernetesLauncher(
            {site: settings(f"fedcore-{site}", config, **job) for site in names}
        )
        for seq in range(2 * rounds):
            for site in names:
                launcher.ensure(order(seq, site=site))
            _await(launcher, kube, names, warm=warm)
            if seq % 2:
                gc.collect()
                memory.append(_resident())
        launcher.close()
        spent = kube.requests.count() / sites / rounds
        jobs = kube.requests.count("create", "jobs")
    return Measured(spent, jobs, memory, time.perf_counter() - begun)


def _await(launcher: KubernetesLauncher, kube: KubeApi, names: list[str], *, warm: bool) -> None:
    """Poll as the server does, until every client runs, or has ended."""
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up:
        statuses = [launcher.poll(site) for site in names]
        told = [status.reason for status in statuses if status.permanent]
        if told:
            raise SystemExit(f"the benchmark's own clients failed: {told[0]}")
        if warm and len(kube.pods(phase="Running")) == len(names):
            return
        if not warm and all(status.state == "failed" for status in statuses):
            return
        time.sleep(0.2)
    raise SystemExit("the benchmark's clients did not come up in 10 minutes")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _row(name: str, value: float, goal: float | None, unit: str = "requests") -> Row:
    met = None if goal is None else value <= goal
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "met": met}
