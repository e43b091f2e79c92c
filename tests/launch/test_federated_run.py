"""A whole federated run through the Kubernetes launcher: the Jobs' own commands, as processes.

Whatever is done to pods and API server on the way, the params are those of a run that nobody
disturbed, in which no process was started at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toy
from hospitals import Hospitals
from kube import KubeApi
from ruamel.yaml import YAML

from fedcore.agent import Agent
from fedcore.launch.api import Launcher
from fedcore.launch.kubernetes import KubernetesLauncher
from fedcore.params import digest
from fedcore.server.run import load_state
from fedcore.store.calls import Calls
from fedcore.store.exchange import Exchange

PLAN = toy.plan(timeouts={"round": 90, "idle": 60, "poll": 0.05})
SUPPORT = Path(toy.__file__).parent


@pytest.fixture(scope="module")
def undisturbed() -> str:
    store = toy.MemoryStore()
    run = toy.open_toy(store, PLAN)
    toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    return digest(load_state(run, PLAN.rounds).params)


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    with KubeApi() as kube:
        yield Hospitals(tmp_path, kube, PLAN)


def test_same_params_as_without_a_cluster(hospitals: Hospitals, undisturbed: str) -> None:
    params, records = hospitals.run()
    assert params == undisturbed
    assert all(not record.dropped for record in records)
    for site in toy.SITES:
        assert len(hospitals.kube.jobs(f"fedcore-{site}")) == 1, "one Job served the whole run"


def _kill_a_pod(hospitals: Hospitals) -> None:
    (pod,) = hospitals.kube.until(lambda: hospitals.pods("north"))
    hospitals.kube.kill("fedcore-north", pod)


def _drop_watches(hospitals: Hospitals) -> None:
    hospitals.kube.until(lambda: hospitals.kube.open_watches() == 2 * len(toy.SITES))
    hospitals.kube.drop_watches()
    hospitals.kube.expire_watches()


def _outage(hospitals: Hospitals) -> None:
    hospitals.kube.until(lambda: hospitals.pods("west"))
    with hospitals.kube.outage():
        time.sleep(2)  # its length, not a wait for anything


def _bad_minute(hospitals: Hospitals) -> None:
    for code in (403, 409, 429, 500):
        hospitals.kube.fail(code, verb="get", times=1)
    hospitals.kube.fail(500, verb="create", times=2)
    hospitals.kube.fail(429, verb="list", retry_after=1, times=2)


@pytest.mark.parametrize(
    "disturb", [_kill_a_pod, _drop_watches, _outage, _bad_minute], ids=lambda f: f.__name__[1:]
)
def test_disturbed(
    hospitals: Hospitals, undisturbed: str, disturb: Callable[[Hospitals], None]
) -> None:
    errors: list[BaseException] = []

    def act() -> None:
        try:
            disturb(hospitals)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    params, records = hospitals.run()
    thread.join()
    assert not errors
    assert params == undisturbed
    assert all(not record.dropped for record in records)


def test_site_without_gpu_drops_out_with_its_reason(hospitals: Hospitals) -> None:
    from kube import GPU_ABSENT, Unschedulable

    hospitals.jobs |= {"pending_seconds": 1, "gpu": {"count": 1}}
    begun = time.monotonic()
    with hospitals.kube.scenario(Unschedulable(GPU_ABSENT), "fedcore-north"):
        _, records = hospitals.run()
    assert "no node has 1 nvidia.com/gpu" in records[0].dropped["north"]
    assert set(records[0].weights) == {"east", "west"}
    assert time.monotonic() - begun < PLAN.timeouts.round, "no timeout was waited for"


def test_by_the_sites_own_agents(hospitals: Hospitals, undisturbed: str) -> None:
    """The server touches no cluster: its rights there are taken away."""
    stopping = threading.Event()
    made: list[KubernetesLauncher] = []
    threads = []
    for site in toy.SITES:
        hospitals.kube.allow("fedcore-server", f"fedcore-{site}", {})
        hospitals.kube.allow("agent", f"fedcore-{site}")
    config = hospitals.kube.kubeconfig(hospitals.folder / "agents", user="agent")

    def launch(site: str) -> Launcher:
        place = hospitals.federation().sites[site].kubernetes
        assert place is not None
        made.append(KubernetesLauncher({site: place.model_copy(update={"kubeconfig": config})}))
        return made[-1]

    def look(site: str) -> None:
        agent = Agent(site, toy.KEY.public_key(), Exchange(hospitals.exchange),
                      Calls(hospitals.exchange), lambda: launch(site))  # fmt: skip
        while not stopping.wait(0.1):
            agent.look()

    for site in toy.SITES:
        threads.append(threading.Thread(target=look, args=(site,)))
        threads[-1].start()
    try:
        params, _ = hospitals.run(launch="agent")
        for site in toy.SITES:
            hospitals.kube.until(lambda s=site: not hospitals.kube.jobs(f"fedcore-{s}"))
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        for launcher in made:
            launcher.close()
    assert params == undisturbed


@pytest.mark.e2e
def test_the_command_a_user_types(hospitals: Hospitals, prefect_home: Path) -> None:
    """``fedcore run`` with ``launch: kubernetes``: Prefect flow, Jobs, verdict."""
    shutil.copytree(prefect_home, hospitals.folder / "prefect")
    federation = hospitals.federation().model_dump(mode="json", exclude_none=True)
    yaml = YAML(typ="safe", pure=True)
    yaml.dump(federation, hospitals.folder / "federation.yaml")
    (hospitals.folder / "plan.yaml").write_text(PLAN.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    environment["PYTHONPATH"] = str(SUPPORT)  # the export builds the toy's model
    done = subprocess.run(
        [sys.executable, "-m", "fedcore", "run", "plan.yaml", "--federation", "federation.yaml",
         "--json"],
        cwd=hospitals.folder, env=environment, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["sites"]) == set(toy.SITES)
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    for site in toy.SITES:
        (job,) = hospitals.kube.jobs(f"fedcore-{site}")
        hospitals.kube.until(
            lambda j=job: hospitals.kube.job(j["metadata"]["namespace"], j["metadata"]["name"]),
            "Complete",
        )
