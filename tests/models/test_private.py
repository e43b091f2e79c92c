"""The model for private training: what it sees, what it does not, and that little is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from fedcore.config.task import Task
from fedcore.data import intensities, preprocess
from fedcore.data.phantoms.brain import contrast
from fedcore.data.phantoms.brain.anatomy import template
from fedcore.errors import ConfigError
from fedcore.models.private import HEALTHY, REGIONS, Findings, findings_classifier, regions
from fedcore.training.state import get_params

SHAPE, SPACING_MM = (40, 48, 40), 4.0
WINDOWS = {"ct": (0.0, 80.0), "pet": (0.0, 12.0)}


class Middle:
    """Of every range, the middle; of every texture, none."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def standard_normal(self, shape: Any, dtype: Any = None) -> Any:
        return np.zeros(shape, np.float32)


def healthy_head(modality: str) -> Tensor:
    """The MNI152 head as a scanner of 3 mm (PET: 5 mm more) has it, normalised (1, 1, X, Y, Z)."""
    head = template(3.0)
    middle: Any = Middle()
    image = contrast.rendered(contrast.tissues(head, middle), modality, middle)
    width = np.hypot(3.0, 5.0 if modality == "pet" else 0.0) / 2.3548 / 3.0
    image = ndimage.gaussian_filter(image, width, mode="nearest")
    kind: Any = modality if modality in WINDOWS else "mr"
    if kind == "mr":
        image = np.hypot(image, np.float32(3.0))  # the noise of a magnitude
    grid = preprocess.centred_grid(image.shape, head.affine, shape=SHAPE, spacing_mm=SPACING_MM)
    resampled = preprocess.resample(image.astype(np.float32), head.affine, grid)
    return torch.from_numpy(intensities.normalise(resampled, kind, WINDOWS.get(modality)))[
        None, None
    ]


@pytest.mark.parametrize("modality", sorted(HEALTHY))
def test_what_is_healthy_is_the_public_templates(modality: str) -> None:
    found = Findings(SHAPE, SPACING_MM, HEALTHY[modality])
    responses = found.responses(healthy_head(modality)).view(len(REGIONS), 2)
    np.testing.assert_allclose(responses, HEALTHY[modality], atol=6e-4)
    assert (found(healthy_head(modality)) == 0).all(), "a healthy head has no findings"


def blob(region: str, *, size: float = 1.0) -> Tensor:
    """A healthy FLAIR image with a ball of 16 mm radius where the region is most itself."""
    mask = regions(SHAPE, SPACING_MM)[REGIONS.index(region)]
    others = regions(SHAPE, SPACING_MM)[
        [i for i, r in enumerate(REGIONS) if r not in ("head", region)]
    ]
    at = np.unravel_index(int((mask - others.amax(dim=0)).argmax()), mask.shape)
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    ball = (np.linalg.norm(places - 2 * np.array(at), axis=-1) < 4).astype(np.float32)
    return healthy_head("flair") + size * torch.from_numpy(ball)


@pytest.mark.parametrize("region", ["deep", "convexity", "sella"])
def test_a_blob_is_found_where_it_is_and_as_what_it_is(region: str) -> None:
    found = Findings(SHAPE, SPACING_MM, HEALTHY["flair"])
    bright = found(blob(region, size=3.0)).view(len(REGIONS), 2)
    assert bright[REGIONS.index(region)].argmax() == 0
    assert bright[REGIONS.index(region), 0] == bright[1:].max() > 1
    mirrored = found(blob(region, size=3.0).flip(2)).view(len(REGIONS), 2)
    np.testing.assert_allclose(mirrored, bright, rtol=0.15)  # the grid thins out from one side
    dark = found(blob(region, size=-3.0)).view(len(REGIONS), 2)
    assert dark[REGIONS.index(region)].argmax() == 1


def model(task: Task, shape: tuple[int, ...] = (16, 20, 16)) -> Any:
    torch.manual_seed(0)
    made = findings_classifier(task, shape=shape, spacing_mm=10.0)
    torch.nn.init.normal_(made.head.weight)
    return made


def test_only_the_last_map_is_trained_and_nothing_else_is_among_the_params(task: Task) -> None:
    made = findings_classifier(task, shape=SHAPE, spacing_mm=SPACING_MM)
    params = get_params(made)
    assert set(params) == {"head.weight", "head.bias"}
    assert params["head.weight"].shape == (3, 8 * 3)
    assert all((array == 0).all() for array in params.values())


def test_an_absent_image_never_matters(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    made, inputs = model(task), make_inputs([[1, 0, 1], [1, 0, 0]])
    logits = made(inputs)
    broken = {**inputs, "flair": torch.full_like(inputs["flair"], float("nan"))}
    assert torch.equal(made(broken), logits)
    del broken["flair"]
    assert torch.equal(made(broken), logits)
    alone = {name: tensor[1:] for name, tensor in inputs.items()}
    np.testing.assert_allclose(made(alone).detach(), logits[1:].detach(), atol=1e-5)


def test_no_subject_is_louder_than_another(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    made = model(task)
    heard: list[Tensor] = []
    made.head.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    inputs = make_inputs([[1, 1, 1]] * 3)
    made({name: 50 * tensor if name != "present" else tensor for name, tensor in inputs.items()})
    assert 3.0 < heard[0].norm(dim=1).min() <= heard[0].norm(dim=1).max() <= 4.0


def test_it_exports_with_a_free_batch_and_agrees(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    made, example, path = model(task).eval(), make_inputs([[1, 1, 1], [1, 0, 1]]), tmp_path / "m"
    torch.onnx.export(
        made, kwargs={"inputs": example}, f=path, dynamo=True, verbose=False, external_data=False,
        input_names=list(example), output_names=["logits"],
        dynamic_shapes={"inputs": {name: {0: torch.export.Dim("batch")} for name in example}},
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for present in ([[1, 0, 0]], [[0, 1, 1], [1, 1, 1], [0, 0, 0]]):
        inputs = make_inputs(present, seed=7)
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(logits, made(inputs).detach().numpy(), atol=1e-4)


def test_what_it_knows_nothing_of_is_refused(task: Task) -> None:
    other = task.model_copy(update={"modalities": {"swi": task.modalities["t1ce"]}})
    with pytest.raises(ConfigError, match="a healthy head shows in swi is not known"):
        findings_classifier(other, shape=SHAPE, spacing_mm=SPACING_MM)
    given = {"swi": [(0.5, 0.5)] * 4}
    findings_classifier(other, shape=SHAPE, spacing_mm=SPACING_MM, healthy=given)
    with pytest.raises(ConfigError, match="shape wants three sizes"):
        findings_classifier(task, shape=(4, 4, 4), spacing_mm=SPACING_MM)
