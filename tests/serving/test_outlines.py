"""A segmentation's answer lies on the scan that was sent, whichever way it is stored."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from prometheus_client import CollectorRegistry

from fedcore.config.task import Task
from fedcore.data.preprocess import Grid
from fedcore.serving.app import create_app
from fedcore.serving.outlines import on_scan

SHAPE = (20, 22, 20)
AXES = [(2, 0, 1), (0, 1, 2)]


@dataclass(frozen=True)
class Manifest:
    plan: dict[str, Any] = field(default_factory=dict)
    version: int = 3
    onnx_digest: str = "digest"


def model(size: Sequence[int] = SHAPE, **windows: float) -> bytes:
    """Softmax of (0, 4·(t1 − 1)): what is brighter than the head's mean by a deviation."""
    axes = ["batch", 1, *size]
    image = helper.make_tensor_value_info("t1", TensorProto.FLOAT, axes)
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2, *size])
    nodes = [
        helper.make_node("Sub", ["t1", "one"], ["excess"]),
        helper.make_node("Mul", ["excess", "four"], ["lesion"]),
        helper.make_node("Sub", ["t1", "t1"], ["background"]),
        helper.make_node("Concat", ["background", "lesion"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value])
                 for name, value in (("one", 1.0), ("four", 4.0))]  # fmt: skip
    graph = helper.make_graph(nodes, "outlines", [image], [found], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    props = {"classes": ["background", "lesion"], "modalities": ["t1"], **windows}
    helper.set_model_props(made, {name: json.dumps(value) for name, value in props.items()})
    return bytes(made.SerializeToString())


def task() -> dict[str, Any]:
    return Task.model_validate(
        {
            "classes": ["background", "lesion"],
            "modalities": {"t1": {"kind": "mr", "path": "anat/*_T1w.nii.gz"}},
            "target": {"structures": {"lesion": {"path": "anat/*_mask.nii.gz"}}},
            "model": {"function": "fedcore.models.segment:segmenter"},
            "dataset": {"function": "fedcore.data.bids:dataset",
                        "arguments": {"shape": list(SHAPE), "spacing_mm": 4.0}},
        }
    ).model_dump(mode="json")  # fmt: skip


def scan(order: Sequence[int] = (0, 1, 2), voxel_mm: float = 2.0) -> tuple[bytes, np.ndarray]:
    """A head with a lesion off its middle, axes flipped, in any order; and where the lesion is."""
    size = np.array([36, 40, 34])
    affine = np.diag([-voxel_mm, voxel_mm, -voxel_mm, 1.0])
    affine[:3, 3] = np.array([1, -1, 1]) * voxel_mm * (size - 1) / 2
    affine, size = affine[:, [*order, 3]], size[list(order)]
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices(size), 0, -1))
    head = np.linalg.norm(places, axis=-1) < 32
    lesion = np.linalg.norm(places - [12, -8, 6], axis=-1) < 11
    voxels = (100.0 * head + 200.0 * lesion).astype(np.float32)
    return gzip.compress(nibabel.Nifti1Image(voxels, affine).to_bytes()), lesion


def serving(onnx: bytes, least_voxels: int = 0) -> TestClient:
    what = task()
    what["target"]["structures"]["lesion"]["least_voxels"] = least_voxels
    manifest = Manifest({"task": what})
    app = create_app(lambda: (onnx, manifest), lambda: 3, registry=CollectorRegistry())
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> Any:
    with serving(model()) as found:
        yield found


@pytest.mark.parametrize("order", AXES)
def test_the_mask_lies_on_the_scan_as_it_is_stored(client: Any, order: Sequence[int]) -> None:
    data, lesion = scan(order)
    answer = client.post("/predict", files={"t1": ("t1.nii.gz", data)})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["x-fedcore-version"] == "3"
    assert answer.headers["x-fedcore-modalities"] == "t1"
    found = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    sent = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
    assert np.array_equal(found.affine, sent.affine)
    labels = np.asarray(found.dataobj)
    assert labels.shape == lesion.shape
    assert set(np.unique(labels)) == {0, 1}
    dice = 2 * (labels.astype(bool) & lesion).sum() / (labels.sum() + lesion.sum())
    assert dice > 0.75, "at the resolution of the model's grid, by its threshold"
    middle = [np.argwhere(of).mean(axis=0) for of in (labels, lesion)]
    assert np.allclose(*middle, atol=0.5), "voxels of 2 mm"


def test_arrays_are_answered_by_labels_on_their_grid(client: Any) -> None:
    image = np.zeros((2, 1, *SHAPE), np.float32)
    image[1, 0, 3:6, 4, 5] = 2.0
    body = io.BytesIO()
    np.savez(body, t1=image)
    answer = client.post("/predict", content=body.getvalue())
    assert answer.status_code == 200, answer.text
    labels = np.load(io.BytesIO(answer.content))["labels"]
    assert labels.shape == (2, *SHAPE)
    assert np.array_equal(labels, image[:, 0] > 1)


def test_a_model_of_patches_answers_on_the_whole_scan(client: Any) -> None:
    """It looks at each voxel alone, so that whole or in windows it must say the same."""
    scans = {"t1": ("t1.nii.gz", scan()[0])}
    whole = client.post("/predict", files=scans)
    with serving(model((7, 8, 20), overlap=0.4)) as of_patches:
        answer = of_patches.post("/predict", files=scans)
    assert answer.status_code == 200, answer.text
    found, wanted = (
        np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(a.content)).dataobj)
        for a in (answer, whole)
    )
    assert wanted.any()
    assert (found != wanted).mean() < 1e-4, "but for ties that rounding decides"


def test_a_structure_of_fewer_voxels_than_the_plan_asks_was_not_found() -> None:
    image = np.zeros((2, 1, *SHAPE), np.float32)
    image[0, 0, 3:6, 4, 5] = 2.0
    image[1, 0, 3:5, 4, 5] = 2.0
    body = io.BytesIO()
    np.savez(body, t1=image)
    data, lesion = scan()
    with serving(model(), least_voxels=3) as client:
        labels = np.load(io.BytesIO(client.post("/predict", content=body.getvalue()).content))
        scanned = client.post("/predict", files={"t1": ("t1.nii.gz", data)})
    assert labels["labels"].sum(axis=(1, 2, 3)).tolist() == [3, 0]
    assert outlined(scanned.content).any()
    on_grid = lesion.sum() // 8  # voxels of 4 mm where the scan's are of 2
    with serving(model(), least_voxels=2 * int(on_grid)) as client:
        scanned = client.post("/predict", files={"t1": ("t1.nii.gz", data)})
    assert not outlined(scanned.content).any()


def outlined(mask: bytes) -> np.ndarray:
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(mask)).dataobj)


def test_a_scan_that_cannot_be_used_is_told_as_for_a_classifier(client: Any) -> None:
    answer = client.post("/predict", files={"t1": ("t1.nii.gz", b"not an image")})
    assert answer.status_code == 422
    assert "t1: this is not a NIfTI file" in answer.json()["error"]


def test_outside_of_the_grid_all_is_background() -> None:
    everywhere = np.stack([np.zeros((4, 4, 4)), np.ones((4, 4, 4))])
    data, lesion = scan()
    labels = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(on_scan(everywhere, Grid((4, 4, 4), 4.0, (0.0, 0.0, 0.0)), data))
    )
    inside = np.asarray(labels.dataobj)
    assert 0 < inside.sum() * 8 < 20**3
    assert not inside[0].any()
    assert inside[tuple(n // 2 for n in lesion.shape)] == 1
