import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcore.errors import ServiceUnavailable, StoreUnavailable
from fedcore.local import Stack
from fedcore.local.ports import LOOPBACK
from fedcore.store.s3 import S3Store, connect

pytestmark = pytest.mark.e2e


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def get(url: str) -> tuple[int, bytes]:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_up(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def ports_of(workdir: Path) -> list[int]:
    found = [json.loads(path.read_text()) for path in workdir.glob("*/ports.json")]
    return [port for ports in found for port in ports]


def sockets_of(workdir: Path) -> list[Path]:
    mine = {str(port) for port in ports_of(workdir)}
    return [p for p in Path("/tmp").glob("seaweedfs-*.sock") if p.stem.split("-")[-1] in mine]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def server_store(stack: Stack) -> S3Store:
    keys = stack.credential("server")
    return connect(
        bucket=stack.exchange_bucket,
        endpoint=stack.s3_endpoint,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
    )


def put_in_time(stack: Stack, key: str, data: bytes) -> None:
    store = server_store(stack)

    def written() -> bool:
        try:
            store.put(key, data)
        except StoreUnavailable:
            return False
        return True

    until(written)


def test_both_services_answer(stack: Stack) -> None:
    assert get(f"{stack.prefect_api_url}/health") == (200, b"true")
    status, page = get(f"{stack.prefect_ui_url}/")
    assert status == 200
    assert b"<html" in page.lower()
    assert set(stack.seconds) == {"s3", "prefect"}
    assert all(0 < seconds < 180 for seconds in stack.seconds.values())


def test_prefect_reports_to_nobody(stack: Stack) -> None:
    _, settings = get(f"{stack.prefect_api_url}/admin/settings")
    assert json.loads(settings)["server"]["analytics_enabled"] is False


def test_the_way_around_s3_is_locked(stack: Stack) -> None:
    put_in_time(stack, "records/secret", b"secret")
    ports = json.loads((stack.prefect_home.parent / "s3" / "ports.json").read_text())
    for port in ports[0::2]:  # HTTP; the others are gRPC
        status, body = get(f"http://{LOOPBACK}:{port}/buckets/fedcore-exchange/records/secret")
        assert status in (401, 403, 404, 405, 406)
        assert b"secret" not in body.replace(b"records/secret", b"")


def test_only_names_that_users_need_have_a_credential(stack: Stack) -> None:
    with pytest.raises(KeyError):
        stack.credential("admin")


@pytest.mark.parametrize("service", ["s3", "prefect"])
def test_a_killed_service_comes_back_with_its_data(stack: Stack, service: str) -> None:
    put_in_time(stack, "records/before", b"kept" * 3_000_000)
    addresses = stack.s3_endpoint, stack.prefect_api_url
    former = stack.pids[service]
    os.kill(former, signal.SIGKILL)
    until(lambda: stack.pids[service] not in (0, former))
    put_in_time(stack, "records/after", b"")
    until(lambda: is_up(f"{stack.prefect_api_url}/health"))
    assert (stack.s3_endpoint, stack.prefect_api_url) == addresses
    store = server_store(stack)
    assert store.get("records/before") == b"kept" * 3_000_000
    store.delete("records/before")
    store.delete("records/after")


HOLDER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's "&"
from pathlib import Path
from fedcore.local import Stack
from fedcore.store.s3 import connect
with Stack(Path(sys.argv[1]), ["north"]) as stack:
    keys = stack.credential("server")
    connect(bucket=stack.exchange_bucket, endpoint=stack.s3_endpoint, access_key=keys.access_key,
            secret_key=keys.secret_key).create("records/kept", b"kept")
    print(*stack.pids.values(), flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_but_the_data_however_it_ends(tmp_path: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGINT):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert holder.stdout is not None
        with holder.stdout:
            pids = [int(pid) for pid in holder.stdout.readline().split()]
        ports = ports_of(tmp_path)
        assert len(pids) == 2
        assert all(map(listening, ports))
        holder.send_signal(number)
        holder.wait(timeout=60)
        until(lambda pids=pids: not any(map(alive, pids)), seconds=20)
        assert not any(map(listening, ports))
    assert sockets_of(tmp_path) == []

    with Stack(tmp_path, ["north"]) as stack:
        assert ports_of(tmp_path) == ports
        assert server_store(stack).get("records/kept") == b"kept"
    assert not any(map(listening, ports))
    assert sockets_of(tmp_path) == []


def test_a_service_that_does_not_answer_is_named_and_all_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="did not answer within 0 s"):
        Stack(tmp_path, ["north"], timeout=0.0).start()
    assert not any(map(listening, ports_of(tmp_path)))
    assert sockets_of(tmp_path) == []
