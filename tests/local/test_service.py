"""Services with a program of a few lines in place of SeaweedFS and Prefect."""

import http.client
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fedcore.errors import ServiceUnavailable
from fedcore.local.ports import LOOPBACK
from fedcore.local.service import Service

SERVE = [sys.executable, "-m", "http.server", "--bind", LOOPBACK]


class WebServer:
    """A Program."""

    name = "web"
    num_ports = 1
    grace = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fails = False

    def command(self, ports: Sequence[int]) -> list[str]:
        if self.fails:
            return [sys.executable, "-c", "raise SystemExit('the disk has gone')"]
        return [*SERVE, str(ports[0])]

    def environment(self, ports: Sequence[int]) -> dict[str, str]:
        return {"PATH": os.defpath}

    def answers(self, ports: Sequence[int]) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, ports[0], timeout=5)
        try:
            connection.request("HEAD", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def remains(self, ports: Sequence[int]) -> list[Path]:
        return [self.folder.parent / f"{ports[0]}.sock"]


@pytest.fixture
def program(tmp_path: Path) -> WebServer:
    return WebServer(tmp_path / "web")


@pytest.fixture
def service(program: WebServer) -> Iterator[Service]:
    made = Service(program)
    yield made
    made.stop()


def until(condition: Callable[[], bool], look: Callable[[], None], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        look()
        assert time.monotonic() < deadline, "did not happen in time"
        threading.Event().wait(0.02)


def start(service: Service) -> None:
    service.start()
    until(lambda: service.ready, service.look)


def test_it_answers_and_ends(service: Service, program: WebServer) -> None:
    start(service)
    assert program.answers(service.ports)
    assert 0 < service.seconds < 30
    socket_file = program.remains(service.ports)[0]
    socket_file.touch()
    service.stop()
    assert not program.answers(service.ports)
    assert not socket_file.exists()
    assert service.pid == 0


def test_ports_are_kept_over_restarts(service: Service, program: WebServer) -> None:
    start(service)
    service.stop()
    assert Service(program).ports == service.ports


def test_ports_that_others_took_meanwhile_are_replaced(program: WebServer) -> None:
    former = Service(program).ports
    with socket.create_server((LOOPBACK, former[0])):
        assert Service(program).ports != former


def test_a_lost_race_for_a_port_is_run_again(service: Service) -> None:
    former = service.ports
    with socket.create_server((LOOPBACK, former[0])) as other:
        other.settimeout(0)
        service.program.answers = lambda ports: ports != former  # type: ignore[method-assign]
        service.start()
        # The program needs a moment to find its port taken; until then nobody calls it ready.
        until(lambda: service.ports != former, service.look)
    del service.program.answers
    until(lambda: service.ready, service.look)
    assert service.pid


def test_an_early_end_shows_the_log(service: Service, program: WebServer) -> None:
    program.fails = True
    service.start()
    with pytest.raises(ServiceUnavailable, match=r"web ended with exit code 1(.|\n)*the disk has"):
        until(lambda: service.ready, service.look)


def test_a_killed_service_comes_back_on_its_ports(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    start(service)
    former, pid = service.ports, service.pid
    os.kill(pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING, "fedcore.local"):
        until(lambda: service.pid != pid, service.revive)
        until(lambda: service.ready, service.revive)
    assert service.ports == former
    assert "web ended with exit code 137; it is started again" in caplog.text
    assert "web answers again after" in caplog.text


def test_a_service_that_keeps_ending_is_left(
    service: Service, program: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    start(service)
    program.fails = True
    os.kill(service.pid, signal.SIGKILL)
    until(lambda: "left as it is" in caplog.text, service.revive)
    assert caplog.text.count("it is started again") == 5
    assert "the disk has gone" in caplog.text
    service.revive()
    assert caplog.text.count("left as it is") == 1
