"""The edge to the API server, where what answers is not what was expected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3

from fedcore.launch.cluster import ApiError, Cluster, Mirror


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class Breaking:
    """An answer whose connection breaks while its body is read."""

    @property
    def data(self) -> bytes:
        raise urllib3.exceptions.ProtocolError("connection broken")


@pytest.mark.parametrize(
    "body", [b"<html>captive portal</html>", b'{"items": [{}]}', b'{"kind": "Status"}', b"[]"]
)
def test_a_watch_outlives_the_answers_of_strangers(body: bytes) -> None:
    """A proxy, a portal: told as a problem, and asked again until the right one answers."""
    bodies = [body]

    def listing(**asked: Any) -> Any:
        if asked.get("watch"):
            raise urllib3.exceptions.ProtocolError("not in this test")
        return SimpleNamespace(data=bodies[0])

    mirror = Mirror(listing, "fedcore-north", "")
    until(lambda: mirror.problem is not None)
    assert mirror.problem is not None
    assert mirror.problem.temporary
    assert "not of a Kubernetes API server" in mirror.problem.message
    bodies[0] = json.dumps({"items": [], "metadata": {"resourceVersion": "7"}}).encode()
    until(mirror.listed.is_set)
    mirror.stop()


def test_a_log_that_breaks_off_is_an_api_error() -> None:
    """And so costs its lines, not the run."""
    cluster = object.__new__(Cluster)
    cluster._core = SimpleNamespace(read_namespaced_pod_log=lambda *_, **__: Breaking())
    with pytest.raises(ApiError, match="the answer broke off"):
        cluster.log("fedcore-north", "pod", 10)
