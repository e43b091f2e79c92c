"""``fedcore serve`` as a hospital runs it, until a test is through with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from running import until

from fedcore.local.ports import choose


@contextmanager
def serving(name: str, federation: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """The model's address, the command and its log, as soon as it answers."""
    log = federation.parent / "serve.log"
    (port,) = choose(1)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "fedcore", "serve", name, "--federation", str(federation),
         "--port", str(port)],
        stdout=log.open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/metrics", timeout=60).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    try:
        until(answers)
        yield url, process, log
    finally:
        process.kill()
        process.wait()
