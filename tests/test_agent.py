"""The agent: starts what is asked, says how it is, and ends what nobody asks for any more."""

from __future__ import annotations

import pytest
import toy

from fedcore.agent import Agent
from fedcore.errors import ServiceUnavailable
from fedcore.launch.agent import AgentLauncher
from fedcore.launch.api import RUNNING, WorkOrder
from fedcore.records import ClientStatus
from fedcore.server import orders
from fedcore.server.run import Run
from fedcore.store.calls import Calls
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

FAILED = ClientStatus("failed", "no node has 1 nvidia.com/gpu", permanent=True)


class Recorder:
    """A launcher that notes what it is told, and says what the test wants."""

    def __init__(self) -> None:
        self.ensured: list[int] = []
        self.cancelled: list[str] = []
        self.closed = False
        self.unreachable = False
        self.status = RUNNING

    def ensure(self, order: WorkOrder) -> None:
        self.ensured.append(order.seq)

    def poll(self, site: str) -> ClientStatus:
        return self.status

    def cancel(self, site: str, run_id: str) -> None:
        if self.unreachable:
            raise ServiceUnavailable("the API server does not answer")
        self.cancelled.append(run_id)

    def close(self) -> None:
        self.closed = True


class Scene:
    """A run that has asked site north, by its agent, for its first order."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.run: Run = toy.open_toy(self.store, toy.plan())
        self.order = next(o for o in orders.train_orders(self.run, 0) if o.site == "north")
        self.launcher = AgentLauncher(Calls(self.store), toy.KEY)
        self.launched = Recorder()
        self.agent = Agent("north", toy.KEY.public_key(), Exchange(self.store),
                           Calls(self.store), lambda: self.launched)  # fmt: skip


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr("fedcore.launch.agent._LOOK", 0.0)
    return Scene()


def test_starts_what_is_asked_once(scene: Scene) -> None:
    scene.agent.look()
    assert scene.launched.ensured == []
    scene.launcher.ensure(scene.order)
    for _ in range(3):
        scene.agent.look()
    assert scene.launched.ensured == [0]


def test_in_a_secure_round_the_update_is_not_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that dies between its update and its shares is started again, until those came."""
    secure = {"mode": "masks", "threshold": 2}
    plan = toy.plan(aggregation={"weights": "uniform"}, secure_aggregation=secure)
    monkeypatch.setattr("fedcore.launch.agent._LOOK", 0.0)
    monkeypatch.setattr(toy, "plan", lambda: plan)
    scene, data = Scene(), toy.site_stores()
    toy.train_round(scene.run, 0, toy.InlineLauncher(scene.store, data, drops={"north": "unmask"}))
    scene.launcher.ensure(scene.order)
    assert scene.run.exchange.has_reply("north", "run-1", 0), "its update"
    scene.agent.look()
    assert scene.launched.ensured == [0]
    toy.InlineLauncher(scene.store, data).ensure(scene.order)
    assert scene.run.exchange.has_reply("north", "run-1", 0, "unmask")
    scene.launched.status = FAILED
    scene.agent.look()
    assert scene.launched.ensured == [0]
    assert scene.launcher.poll("north") == RUNNING, "nobody asks how a client is that is done"


def test_an_answered_order_starts_nothing(scene: Scene) -> None:
    scene.launcher.ensure(scene.order)
    client = toy.Client(toy.policy("north"), Exchange(scene.store), toy.site_store("north"))
    reply = toy.answer(client, "run-1", 0)
    assert reply is not None
    scene.run.exchange.put_reply(reply)
    scene.agent.look()
    assert scene.launched.ensured == []


def test_the_server_hears_what_went_wrong(scene: Scene) -> None:
    scene.launcher.ensure(scene.order)
    scene.agent.look()
    assert scene.launcher.poll("north") == RUNNING
    scene.launched.status = FAILED
    scene.agent.look()
    assert scene.launcher.poll("north") == FAILED


def test_a_client_that_ended_is_started_again(scene: Scene) -> None:
    scene.launcher.ensure(scene.order)
    scene.launched.status = ClientStatus("failed", "its client ended without a reply")
    scene.agent.look()
    assert scene.launcher.poll("north").state == "running"
    scene.agent.look()
    assert scene.launched.ensured == [0, 0]


def test_a_cancelled_run_is_ended(scene: Scene) -> None:
    scene.launcher.ensure(scene.order)
    scene.agent.look()
    scene.launcher.cancel("north", "run-1")
    scene.agent.look()
    assert scene.launched.cancelled == ["run-1"]
    assert scene.launched.closed, "an agent lives for years, and must not gather watches"


def test_what_cannot_be_ended_now_is_ended_later(scene: Scene) -> None:
    scene.launcher.ensure(scene.order)
    scene.agent.look()
    scene.launcher.cancel("north", "run-1")
    scene.launched.unreachable = True
    with pytest.raises(ServiceUnavailable):
        scene.agent.look()
    scene.launched.unreachable = False
    scene.agent.look()
    assert scene.launched.cancelled == ["run-1"]


def test_an_order_that_was_never_put_starts_nothing(scene: Scene) -> None:
    Calls(scene.store).call("north", "run-9", 7, toy.KEY)
    scene.agent.look()
    assert scene.launched.ensured == []
    said = Calls(scene.store).said("north", "run-9", 7)
    assert said is not None
    assert said.permanent


def test_calls_of_a_stranger_are_left_alone(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Calls(scene.store).call("north", "run-1", 0, Ed25519PrivateKey.generate())
    scene.agent.look()
    assert scene.launched.ensured == []
    assert "the calls are left alone" in caplog.text
