"""``fedcore serve`` as a hospital runs it: the real command, asked over HTTP.

Its store is a folder, and its models are tiny; what is on trial is the command.
"""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from running import until
from served import serving
from tiny_onnx import CLASSES, build

from fedcore.config import federation as federations
from fedcore.registry.api import Registry
from fedcore.server.connect import server_store

pytestmark = pytest.mark.e2e

FEDERATION = """
exchange: {folder: exchange}
signing_key: server.pem
launch: none
sites: {north: {}}
"""
PLAN = {
    "purpose": "research",
    "task": {
        "classes": list(CLASSES),
        "modalities": {
            "ct": {"kind": "ct", "path": "*", "window": [-1000, 1000]},
            "t1": {"kind": "mr", "path": "*"},
        },
        "model": {"function": "a:b"},
        "dataset": {
            "function": "fedcore.data.bids:dataset",
            "arguments": {"shape": [2, 2, 2], "spacing_mm": 8.0},
        },
    },
}


@dataclass
class Serve:
    """The command, its address and the registry that it serves from."""

    federation: Path
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def registry(self) -> Registry:
        return Registry(server_store(federations.load(self.federation)), "brain")

    def register(self, scale: float) -> int:
        """A version that passed its gate; its answers depend on ``scale``."""
        return self.registry.register(
            model=build(scale=scale), params={"head.bias": np.full(3, scale, np.float32)},
            run_id=f"run-{scale}", created="2026-01-02T03:04:05+00:00", plan_digest="ab" * 32,
            plan=PLAN, onnx_max_abs_diff=0.0, metrics={}, participants={},
            verdict={"passed": True, "reasons": [], "checks": []},
            privacy={"unit": "site", "epsilon": None, "delta": 1e-5, "statement": "none"},
            fedcore_version="0.1.0",
        )  # fmt: skip

    def models(self, *arguments: str) -> None:
        """``fedcore models …``."""
        command = [sys.executable, "-m", "fedcore", "models", *arguments]
        subprocess.run([*command, "--federation", str(self.federation)], check=True, timeout=120)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def predict(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", timeout=60, **body)

    def await_version(self, version: int) -> None:
        until(lambda: self.get("/health").json().get("version") == version, told=f"{version}")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("serve")
    federation = folder / "federation.yaml"
    federation.write_text(FEDERATION)
    (folder / "exchange").mkdir()
    with serving("brain", federation) as (url, process, log):
        yield Serve(federation, url, process, log)


def scan() -> bytes:
    """A NIfTI file; its brightest quarter is on the right."""
    voxels = np.ones((4, 4, 4), np.float32)
    voxels[2:] = np.arange(32).reshape(2, 4, 4)
    return bytes(nibabel.Nifti1Image(voxels, np.diag([4.0, 4.0, 4.0, 1.0])).to_bytes())


def prepared(**images: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **images)
    return stream.getvalue()


def test_without_a_champion_it_waits_for_one(serve: Serve) -> None:
    refused = serve.get("/health")
    assert refused.status_code == 503
    assert "has no champion" in refused.json()["error"]
    serve.models("promote", "brain", str(serve.register(scale=1.0)))
    serve.await_version(1)
    assert "serving version 1" in serve.log.read_text()


def test_scans_and_arrays_are_predicted_from(serve: Serve) -> None:
    """With t1 alone: CT is missing."""
    sent = serve.predict(files={"t1": ("sub-1_T1w.nii", scan())})
    assert sent.status_code == 200, sent.text
    assert sent.json()["modalities_used"] == ["t1"]
    (row,) = sent.json()["predictions"]
    assert list(row) == list(CLASSES)
    assert sum(row.values()) == pytest.approx(1, abs=1e-6)

    eighths = np.full((1, 1, 2, 2, 2), 1 / 8, np.float32)  # logits: 1, 0, and 1 for t1 present
    (row,) = serve.predict(content=prepared(t1=eighths)).json()["predictions"]
    assert row["glioma"] == pytest.approx(1 / (1 + 2 * math.e), rel=1e-5)


def test_the_model_tells_what_it_is_and_the_metrics_what_was_asked(serve: Serve) -> None:
    told = serve.get("/model").json()
    assert (told["name"], told["version"], told["plan"]["purpose"]) == ("brain", 1, "research")
    assert serve.predict(content=os.urandom(10_000)).status_code == 400
    assert serve.predict(files={"t1": ("x.nii.gz", b"\x1f\x8b garbage")}).status_code == 422
    assert serve.predict(files={"mri": ("x.nii", scan())}).status_code == 422
    lines = serve.get("/metrics").text.splitlines()
    assert 'fedcore_predict_requests_total{status="400"} 1.0' in lines
    assert 'fedcore_predict_requests_total{status="422"} 2.0' in lines
    assert "fedcore_model_version 1.0" in lines


def test_it_follows_promotion_and_rollback(serve: Serve) -> None:
    before = serve.predict(files={"t1": ("x.nii", scan())}).json()
    serve.models("promote", "brain", str(serve.register(scale=-1.0)))
    serve.await_version(2)
    after = serve.predict(files={"t1": ("x.nii", scan())}).json()
    assert after["model"]["version"] == 2
    assert after["predictions"] != before["predictions"]
    serve.models("rollback", "brain")
    serve.await_version(1)
    assert serve.predict(files={"t1": ("x.nii", scan())}).json() == before


def test_what_it_serves_outlives_a_broken_store(serve: Serve) -> None:
    """The champion's pointer is damaged: whoever is served stays served, and it is counted."""
    before = serve.predict(files={"t1": ("x.nii", scan())}).json()
    champion = next(serve.federation.parent.rglob("champion*"))
    good = champion.read_bytes()
    champion.write_bytes(b"garbage")

    def noticed() -> bool:
        assert serve.predict(files={"t1": ("x.nii", scan())}).json() == before
        return "fedcore_reload_failures_total 0.0" not in serve.get("/metrics").text.splitlines()

    until(noticed)
    champion.write_bytes(good)


def test_it_ends_when_it_is_told_to(serve: Serve) -> None:
    serve.process.send_signal(signal.SIGTERM)
    assert serve.process.wait(30) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
    assert "Application shutdown complete" in serve.log.read_text()
