"""What every launcher keeps: processes, Jobs, and Jobs by the site's own agent.

The clients are real ones, of the toy federation; the cluster is the stand-in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import toy
from hospitals import Hospitals
from kube import KubeApi

from fedcore.agent import Agent
from fedcore.launch.agent import AgentLauncher
from fedcore.launch.api import Launcher
from fedcore.launch.kubernetes import KubernetesLauncher
from fedcore.launch.process import ProcessLauncher
from fedcore.records import ClientStatus, TrainOrder
from fedcore.server import orders
from fedcore.store.calls import Calls
from fedcore.store.exchange import Exchange

PLAN = toy.plan(timeouts={"round": 90, "idle": 0, "poll": 0.05})
SITE = "north"


class Scene:
    """A run of one order a client, and a launcher that has not been asked for anything."""

    def __init__(self, hospitals: Hospitals, launcher: Launcher) -> None:
        self.hospitals, self.launcher = hospitals, launcher
        self.run = toy.open_toy(hospitals.exchange, PLAN)

    def order(self) -> TrainOrder:
        return next(o for o in orders.train_orders(self.run, 0) if o.site == SITE)

    def until(self, look: Callable[[], object]) -> None:
        give_up = time.monotonic() + 90
        while not look():
            assert time.monotonic() < give_up, self.launcher.poll(SITE)
            time.sleep(0.05)

    def failed(self) -> ClientStatus:
        self.until(lambda: self.launcher.poll(SITE).state == "failed")
        return self.launcher.poll(SITE)

    def answered(self, order: TrainOrder) -> bool:
        self.launcher.poll(SITE)
        return self.run.exchange.has_reply(SITE, order.run_id, order.seq)


def processes(hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    monkeypatch.setenv("PYTHONPATH", str(Path(toy.__file__).parent))
    launcher = ProcessLauncher({SITE: hospitals.environment(SITE)}, hospitals.folder / "logs")
    yield launcher
    launcher.close()


def jobs(hospitals: Hospitals, _: pytest.MonkeyPatch) -> Iterator[Launcher]:
    place = hospitals.federation().sites[SITE].kubernetes
    assert place is not None
    launcher = KubernetesLauncher({SITE: place})
    yield launcher
    launcher.close()


def agents(hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    monkeypatch.setattr("fedcore.launch.agent._LOOK", 0.0)
    place = hospitals.federation().sites[SITE].kubernetes
    assert place is not None
    within = KubernetesLauncher({SITE: place})
    agent = Agent(SITE, toy.KEY.public_key(), Exchange(hospitals.exchange),
                  Calls(hospitals.exchange), lambda: within)  # fmt: skip
    stopping = threading.Event()

    def look() -> None:
        while not stopping.wait(0.05):
            agent.look()

    thread = threading.Thread(target=look)
    thread.start()
    yield AgentLauncher(Calls(hospitals.exchange), toy.KEY)
    stopping.set()
    thread.join()
    within.close()


@pytest.fixture(params=[processes, jobs, agents], ids=lambda made: made.__name__)
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    with KubeApi() as kube:
        hospitals = Hospitals(tmp_path, kube, PLAN)
        for launcher in request.param(hospitals, monkeypatch):
            yield Scene(hospitals, launcher)


def test_the_order_is_answered_however_often_it_is_asked_for(scene: Scene) -> None:
    order = scene.order()
    assert scene.launcher.poll(SITE).state == "running", "nothing was asked for yet"
    for _ in range(3):
        scene.launcher.ensure(order)
    scene.until(lambda: scene.answered(order))
    reply, _ = scene.run.exchange.reply(order)
    assert reply.site == SITE


def test_a_permanent_failure_is_told_with_the_clients_last_word(scene: Scene) -> None:
    scene.hospitals.break_policy(SITE)
    scene.launcher.ensure(scene.order())
    status = scene.failed()
    assert status.permanent
    assert "exit code 78" in status.reason
    assert "policy.yaml" in status.reason


def test_cancelling_what_was_never_asked_for_is_no_error(scene: Scene) -> None:
    scene.launcher.cancel(SITE, "run-1")
    scene.launcher.cancel(SITE, "run-1")
