"""A real S3 server that goes away, fills up, or loses its answers in the middle of a run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_proxy
import toy
from weed import Weed, running

from fedcore.errors import StoreUnavailable
from fedcore.params import digest
from fedcore.server.run import load_state
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore
from fedcore.store.patient import PatientStore
from fedcore.store.s3 import S3Store, connect

pytestmark = pytest.mark.e2e

PLAN = toy.plan(privacy={"clip_norm": 1.0, "noise_multiplier": 0.5, "noise_source": "seeded"},
                aggregation={"weights": "uniform"})  # fmt: skip
STAGES = {
    "start": "records/run-1/run.json",
    "middle": "params/run-1/00001.safetensors",
    "commit": "records/run-1/rounds/00000/record.json",
}


class Tripwire(S3Store):
    """Acts once, right before ``key`` is created."""

    key = ""
    act: Callable[[], Any] = staticmethod(lambda: None)
    patience = 1.0

    def create(self, key: str, data: bytes) -> bool:
        if key == self.key:
            self.key = ""
            self.act()
        return super().create(key, data)


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with running(tmp_path_factory.mktemp("weed")) as one:
        yield one


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return play(MemoryStore())


def play(exchange: Store) -> str:
    """The whole run, server and clients on the same exchange; the digest of its params."""
    run = toy.open_toy(exchange, PLAN)
    toy.play(run, toy.InlineLauncher(exchange, toy.site_stores()))
    return digest(load_state(run, PLAN.rounds).params)


def exchange_at(reach: dict[str, Any], stage: str, act: Callable[[], Any]) -> Tripwire:
    plain = connect(**reach, prefix=f"{uuid.uuid4()}/")
    wired = Tripwire(plain._bucket, plain._client, plain._prefix)
    wired.key, wired.act = STAGES[stage], act  # type: ignore[method-assign]
    return wired


def stopped(exchange: S3Store, match: str) -> str:
    """The run ends with exit code 75 and a sentence that says why, which is returned."""
    with pytest.raises(StoreUnavailable, match=match) as caught:
        play(PatientStore(exchange, patience=1))
    assert caught.value.exit_code == 75
    return str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_for_good_the_run_ends_and_resumes(weed: Weed, undisturbed: str, stage: str) -> None:
    exchange = exchange_at(weed.reach, stage, weed.kill)
    try:
        assert STAGES[stage] in stopped(exchange, "is the service up")
    finally:
        weed.start()
    assert not exchange.exists(STAGES[stage])
    assert play(exchange) == undisturbed


def test_killed_and_back_the_run_goes_on_by_itself(weed: Weed, undisturbed: str) -> None:
    """At all stages of one run, each time for as long as a start of SeaweedFS takes."""
    starts: list[threading.Thread] = []

    def restart() -> None:
        weed.kill()
        starts.append(threading.Thread(target=weed.start))
        starts[-1].start()

    exchange = exchange_at(weed.reach, "start", lambda: None)

    def wire(stages: list[str]) -> None:
        if stages:
            exchange.key = STAGES[stages[0]]
            exchange.act = lambda: (restart(), wire(stages[1:]))  # type: ignore[method-assign]

    wire(["start", "middle", "commit"])
    # Trusted, since it goes away before it ever answered this store.
    assert play(PatientStore(exchange, patience=60, trusted=True)) == undisturbed
    assert len(starts) == 3
    for thread in starts:
        thread.join()


@pytest.mark.parametrize("stage", STAGES)
def test_out_of_room_the_run_ends_and_resumes(weed: Weed, undisturbed: str, stage: str) -> None:
    """As MinIO says it."""
    with s3_proxy.before(weed.reach["endpoint"]) as proxy:
        reach = {**weed.reach, "endpoint": proxy.endpoint}
        exchange = exchange_at(reach, stage, lambda: setattr(proxy, "full", True))
        assert STAGES[stage] in stopped(exchange, "no room left; free some")
        assert not exchange.exists(STAGES[stage])
        proxy.full = False
        assert play(exchange) == undisturbed


def test_every_answer_lost_once_changes_nothing(weed: Weed, undisturbed: str) -> None:
    """Every writer finds the object that it wrote itself, and knows it."""
    with s3_proxy.before(weed.reach["endpoint"]) as proxy:
        proxy.forgetful = True
        reach = {**weed.reach, "endpoint": proxy.endpoint}
        assert play(connect(**reach, prefix=f"{uuid.uuid4()}/")) == undisturbed
        assert len(proxy.forgotten) > 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)],
        capture_output=True, text=True, check=False,
    ) if sys.platform == "linux" else None  # fmt: skip
    if mounted is None or mounted.returncode != 0:
        pytest.skip("a full disk needs a small file system, and mounting one needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_run_ends_and_resumes(small_disk: Path, undisturbed: str) -> None:
    """SeaweedFS says no more of it than that it has a fault, and needs a start afterwards."""
    with running(small_disk) as weed:
        for stage in STAGES:
            given_back: list[Callable[[], None]] = []
            fill = weed.fill
            exchange = exchange_at(weed.reach, stage, lambda: given_back.append(fill()))  # noqa: B023
            stopped(exchange, "its disk full")  # soon: small objects fit into a last page
            given_back[0]()
            weed.kill()  # its index takes no more entries until it is started again
            weed.start()
            assert play(exchange) == undisturbed, stage


def test_a_wrong_endpoint_is_told_at_once(undisturbed: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the endpoint right"):
        play(PatientStore(connect(bucket="b", endpoint="http://127.0.0.1:9", access_key="k",
                                  secret_key="s")))  # fmt: skip
    assert time.monotonic() - began < 30
