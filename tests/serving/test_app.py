import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from running import until
from safetensors.numpy import save

from fedcore.errors import BlobError, NotFound, StoreUnavailable
from fedcore.serving.app import create_app

T1 = np.full((2, 1, 2, 2, 2), 1 / 8, np.float32)


@dataclass(frozen=True)
class Manifest:
    version: int
    onnx_digest: str
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass
class Source:
    """A registry whose champion a test moves, and which a test breaks."""

    models: dict[int, bytes]
    version: int | None = 1
    error: Exception | None = None
    asked: int = 0
    plan: dict[str, Any] = field(default_factory=dict)

    def champion(self) -> int | None:
        self.asked += 1
        return self.version

    def load(self) -> tuple[bytes, Manifest]:
        if self.error is not None:
            raise self.error
        if self.version is None:
            raise NotFound("model 'brain' has no champion")
        return self.models[self.version], Manifest(
            self.version, f"digest-{self.version}", self.plan
        )


Start = Callable[..., TestClient]


@pytest.fixture
def source(model: bytes, other_model: bytes) -> Source:
    return Source({1: model, 2: other_model})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def start(source: Source, registry: CollectorRegistry) -> Start:
    def start(**options: Any) -> TestClient:
        settings = {"check_seconds": 0.0, **options}
        return TestClient(create_app(source.load, source.champion, registry=registry, **settings))

    return start


def npz(**members: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **members)
    return stream.getvalue()


@pytest.mark.parametrize("body", [npz(t1=T1), save({"t1": T1})])
def test_a_prediction_says_which_model_made_it(start: Start, body: bytes) -> None:
    answer = start().post("/predict", content=body)
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"] == {"version": 1, "onnx_digest": "digest-1"}
    assert found["modalities_used"] == ["t1"]
    expected = np.exp([1, 0, 1]) / np.exp([1, 0, 1]).sum()
    for row in found["predictions"]:
        assert row == pytest.approx(
            dict(zip(("none", "glioma", "other"), expected, strict=True)), rel=1e-6
        )
    assert len(found["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "neither .npz nor safetensors"),
        (b"\x80\x04 pickle", 400, "neither .npz nor safetensors"),
        (npz(t1=np.array([{}], dtype=object)), 400, "not an array of numbers"),
        (npz(), 422, "no image was given"),
        (npz(mri=T1), 422, "no input 'mri'"),
        (npz(t1=T1[0]), 422, "(batch, 1, 2, 2, 2) is wanted"),
        (npz(t1=T1 * np.inf), 422, "not finite"),
        (bytes(20_000), 413, "more than 10000 bytes"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    start: Start, registry: CollectorRegistry, body: bytes, status: int, message: str
) -> None:
    answer = start(max_bytes=10_000).post("/predict", content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    labels = {"status": str(status)}
    assert registry.get_sample_value("fedcore_predict_requests_total", labels) == 1


def test_a_body_in_pieces_is_stopped_at_the_limit(start: Start) -> None:
    pieces = (bytes(1000) for _ in range(30))
    assert start(max_bytes=10_000).post("/predict", content=pieces).status_code == 413


def test_health_and_manifest(start: Start) -> None:
    client = start()
    assert client.get("/health").json() == {"status": "ok", "version": 1}
    assert client.get("/model").json() == {"version": 1, "onnx_digest": "digest-1", "plan": {}}


def test_metrics_are_for_prometheus(start: Start) -> None:
    client = start()
    client.post("/predict", content=npz(t1=T1))
    client.post("/predict", content=b"")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'fedcore_predict_requests_total{status="200"} 1.0',
        'fedcore_predict_requests_total{status="400"} 1.0',
        "fedcore_predict_seconds_count 2.0",
        "fedcore_model_version 1.0",
    ):
        assert line in answer.text.splitlines()


def test_a_new_champion_is_served(start: Start, source: Source) -> None:
    client = start()
    before = client.post("/predict", content=npz(t1=T1)).json()
    source.version = 2
    until(lambda: client.get("/health").json()["version"] == 2)
    after = client.post("/predict", content=npz(t1=T1)).json()
    assert [before["model"]["version"], after["model"]["version"]] == [1, 2]
    assert before["predictions"] != after["predictions"]


def test_the_pointer_is_not_asked_at_every_request(start: Start, source: Source) -> None:
    client = start(check_seconds=3600.0)
    for _ in range(3):
        client.get("/health")
    assert source.asked == 0


@pytest.mark.parametrize("error", [BlobError("model.onnx was changed"), StoreUnavailable("down")])
def test_a_champion_that_cannot_be_loaded_leaves_the_old_one(
    start: Start, source: Source, registry: CollectorRegistry, error: Exception
) -> None:
    client = start()
    client.get("/health")
    source.version, source.error = 2, error

    def tried() -> bool:
        assert client.get("/health").json()["version"] == 1
        return (registry.get_sample_value("fedcore_reload_failures_total") or 0) > 0

    until(tried)
    source.error = None
    until(lambda: client.get("/health").json()["version"] == 2)


def test_without_a_champion_it_waits_for_one(start: Start, source: Source) -> None:
    source.version = None
    client = start()
    for answer in (client.get("/health"), client.post("/predict", content=npz(t1=T1))):
        assert answer.status_code == 503
        assert "has no champion" in answer.json()["error"]
    assert client.get("/metrics").status_code == 200
    source.version = 1
    assert client.get("/health").status_code == 200


def test_a_store_that_hangs_holds_up_nobody(source: Source) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hangs() -> int:
        asked.set()
        assert answer.wait(60)
        return 2

    app = create_app(source.load, hangs, registry=CollectorRegistry(), check_seconds=0.0)
    client = TestClient(app)
    until(lambda: client.get("/health").json()["version"] == 1 and asked.is_set())
    for _ in range(3):
        assert client.get("/health").json()["version"] == 1
    source.version = 2
    answer.set()
    until(lambda: client.get("/health").json()["version"] == 2)


def test_a_first_model_is_not_waited_for_for_ever(source: Source) -> None:
    answer = threading.Event()

    def hangs() -> tuple[bytes, Manifest]:
        assert answer.wait(60)
        return source.load()

    app = create_app(hangs, source.champion, registry=CollectorRegistry(), first_seconds=0.05)
    client = TestClient(app)
    refused = client.get("/health")
    assert (refused.status_code, refused.json()["error"]) == (
        503, "there is no model to serve: it is still being loaded",
    )  # fmt: skip
    answer.set()
    until(lambda: client.get("/health").status_code == 200)


TASK = {
    "classes": ["none", "glioma", "other"],
    "modalities": {
        "ct": {"kind": "ct", "path": "*", "window": [-1000, 1000]},
        "t1": {"kind": "mr", "path": "*"},
    },
    "model": {"function": "a:b"},
    "dataset": {
        "function": "fedcore.data.bids:dataset",
        "arguments": {"shape": [2, 2, 2], "spacing_mm": 8.0},
    },
}


def scan() -> bytes:
    voxels = np.random.default_rng(0).uniform(1, 9, (4, 4, 4)).astype(np.float32)
    return bytes(nibabel.Nifti1Image(voxels, np.diag([4.0, 4.0, 4.0, 1.0])).to_bytes())


def test_a_subjects_files_are_predicted_from(start: Start, source: Source) -> None:
    source.plan = {"task": TASK}
    answer = start().post("/predict", files={"t1": ("sub-1_T1w.nii", scan())})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["modalities_used"] == ["t1"]
    (row,) = found["predictions"]
    assert sum(row.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("form", "status", "message"),
    [
        ({"files": {"t1": ("x.nii", b"garbage")}}, 422, "t1: this is not a NIfTI file"),
        ({"files": {"mri": ("x.nii", scan())}}, 422, "no input 'mri'"),
        ({"files": [("t1", ("a.nii", scan())), ("t1", ("b.nii", scan()))]}, 400, "twice"),
        ({"files": {"t1": ("x.nii", bytes(20_000))}}, 413, "more than 10000 bytes"),
        ({"data": {"t1": "text"}, "files": {"ct": ("x.nii", scan())}}, 400, "cannot be read"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400,
         "cannot be read"),
        ({"content": b"garbage", "headers": {"content-type": "multipart/form-data; boundary=x"}},
         400, "cannot be read"),
        ({"content": b"--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}},
         422, "no image was given"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_told_what_is_wrong(
    start: Start, source: Source, form: dict[str, Any], status: int, message: str
) -> None:
    source.plan = {"task": TASK}
    answer = start(max_bytes=10_000).post("/predict", **form)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
