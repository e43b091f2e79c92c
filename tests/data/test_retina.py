"""Images of the eye: what a camera or an operator does to them is gone, what is in them is not."""

import gzip
import io
from typing import Any

import nibabel
import numpy as np
import pytest
from heads import nifti_of, scan
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from fedcore.config.task import Preprocessing, Task
from fedcore.data import album, bids, retina
from fedcore.data.ahead import prepare_ahead
from fedcore.data.nifti import Volume
from fedcore.data.preparation import Pipeline, prepare
from fedcore.data.preprocess import Grid
from fedcore.data.site import SiteData
from fedcore.errors import DataError
from fedcore.models.build import classifier
from fedcore.serving import scans
from fedcore.store.memory import MemoryStore

FUNDUS: dict[str, Any] = {"kind": "fundus", "path": "fundus/*.png", "shape": [40, 40]}
OCT: dict[str, Any] = {
    "kind": "oct", "path": "oct/*.nii.gz", "shape": [16, 24, 8], "spacing_mm": [0.25, 0.04, 0.5],
}  # fmt: skip


def task(**modalities: dict[str, Any]) -> Task:
    return Task.model_validate({
        "classes": ["well", "ill"], "modalities": modalities,
        "model": {"function": "fedcore.models.build:classifier", "arguments": {"width": 4}},
        "dataset": {"function": "fedcore.data.bids:dataset"},
    })  # fmt: skip


def disc(size: int = 200, radius: int = 80, at: tuple[int, int] = (110, 90)) -> np.ndarray:
    """A photo: a red disc that fades to one side, with a bright spot to the right of its middle."""
    rows, columns = np.ogrid[:size, : size + 40]
    down, right = (rows - at[0]) / radius, (columns - at[1]) / radius
    shade = 140 + 50 * right + 0 * down
    light = np.stack([shade + 40, 0.6 * shade, 0.2 * shade], axis=-1)
    light[np.hypot(down, right - 0.5) < 0.15] = (250, 220, 150)
    light[np.hypot(down, right) > 1] = 4
    return light.clip(0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def layers(depth_mm: float = 0.9, *, gain: float = 1.0, offset: float = 0.0) -> Volume:
    """An OCT volume: vitreous, a retina with a bright layer ``depth_mm`` from the top, choroid."""
    rng = np.random.default_rng(0)
    shape, edges = (40, 200, 10), (0.1, 0.01, 0.4)
    depth = np.arange(shape[1])[None, ::-1, None] * edges[1]  # Y runs forward, to the vitreous
    image = np.where(depth > depth_mm - 0.3, 60.0, 20.0) * np.ones(shape)
    image += np.where(np.abs(depth - depth_mm) < 0.04, 90.0, 0.0)
    image -= np.where(depth > depth_mm + 0.04, 15.0, 0.0)
    image *= 1 + 0.3 * rng.standard_normal(shape)
    return Volume((gain * image + offset).astype(np.float32), np.diag([*edges, 1.0]))


def prepared(files: dict[str, bytes], **modalities: dict[str, Any]) -> Any:
    return prepare(Pipeline.of(task(**modalities)), files)


def test_the_field_of_view_fills_the_shape_wherever_it_lay() -> None:
    frames = [retina.framed(photo, (40, 40)) for photo in (
        disc(), disc(at=(90, 120)), disc(400, 160, (220, 180)))]  # fmt: skip
    for pixels, field in frames:
        assert field[20].all(), "from edge to edge"
        assert not field[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert field.mean() == pytest.approx(np.pi / 4, abs=0.03)
        assert np.abs(pixels - frames[0][0]).mean() < 0.02


def test_a_photo_lies_as_it_is_seen() -> None:
    pixels, _ = retina.framed(disc(), (40, 40))
    x, y = np.unravel_index(pixels[2].argmax(), pixels[2].shape)
    assert (x, y) == (pytest.approx(30, abs=3), pytest.approx(20, abs=3))


def test_a_wide_shape_is_not_filled_by_stretching() -> None:
    _, field = retina.framed(disc(), (60, 40))
    assert field.any(axis=1).sum() == pytest.approx(40, abs=1)


def test_a_letter_on_the_black_does_not_move_the_field_of_view() -> None:
    marked = disc()
    marked[2:8, 2:8] = 255
    pixels, _ = retina.framed(marked, (40, 40))
    assert np.abs(pixels - retina.framed(disc(), (40, 40))[0]).mean() < 0.02


def test_a_lamps_gain_and_offset_of_a_colour_are_gone() -> None:
    pixels, field = retina.framed(disc(), (40, 40))
    scaled = retina.standardised(pixels, field)
    tinted = pixels * np.float32([0.7, 0.9, 0.95])[:, None, None] + np.float32(0.03)
    assert_allclose(retina.standardised(tinted, field), scaled, atol=2e-3)
    assert (scaled[:, ~field] == 0).all()
    assert_allclose(scaled[:, field].mean(axis=1), 0, atol=1e-5)


def test_the_noise_of_an_empty_channel_is_not_blown_up() -> None:
    pixels, field = retina.framed(disc(), (40, 40))
    pixels[2] = np.random.default_rng(0).uniform(0, 1 / 255, pixels[2].shape)
    assert np.abs(retina.standardised(pixels, field)[2]).max() < 0.5


def test_a_photo_of_nothing_is_refused() -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    grey[0, 0] = 91
    made = prepared({"fundus": png(grey)}, fundus=FUNDUS)
    assert made.left_out["fundus"][0] == "no contrast"


def test_the_retina_is_in_the_middle_however_deep_it_lay() -> None:
    images = [
        prepared({"oct": nifti_of(layers(depth))}, oct=OCT).images["oct"] for depth in (0.6, 1.3)
    ]
    assert np.abs(images[0] - images[1])[2:-2, 6:-6, 1:-1].mean() < 0.2
    profile = images[0].mean(axis=(0, 2))
    assert abs(profile.argmax() - 11.5) <= 1.5


def test_a_devices_gain_and_offset_are_gone() -> None:
    one, other = (
        prepared({"oct": nifti_of(volume)}, oct=OCT).images["oct"]
        for volume in (layers(), layers(gain=7.0, offset=-300.0))
    )
    assert_allclose(one, other, atol=1e-3)


def test_how_much_vitreous_there_is_does_not_change_a_layer() -> None:
    grid = Grid((40, 200, 10), (0.1, 0.01, 0.4), (0.0, 0.0, 0.0))
    whole = layers().voxels
    # Volumes that end 0.5 mm above the bright layer, and 1 mm above.
    shallow = Grid((40, 160, 10), grid.spacing_mm, grid.centre_mm)
    less = retina.scaled_in_band(whole[:, :160], shallow)
    assert_allclose(less, retina.scaled_in_band(whole, grid)[:, :160], atol=0.05)


def test_an_oct_volume_is_read_in_any_orientation() -> None:
    volume = layers()
    flipped = np.array([[-0.1, 0, 0, 3.9], [0, 0, 0.01, 0], [0, 0.4, 0, 0], [0, 0, 0, 1]])
    stored = nibabel.Nifti1Image(volume.voxels[::-1].transpose(0, 2, 1), flipped)
    other = prepared({"oct": gzip.compress(stored.to_bytes())}, oct=OCT)
    assert_allclose(
        other.images["oct"], prepared({"oct": nifti_of(volume)}, oct=OCT).images["oct"], atol=1e-3
    )


def test_a_heads_voxels_are_too_large_for_a_retina_and_the_reverse() -> None:
    assert prepared({"oct": scan(0, "ct")}, oct=OCT).left_out["oct"][0] == "bad voxel size"


def test_images_of_the_eye_stand_beside_a_head_and_neither_moves_the_other() -> None:
    ct = {"kind": "ct", "path": "ct/*_ct.nii.gz", "window": [0, 80]}
    what = task(oct=OCT, ct=ct, fundus=FUNDUS)
    pipeline = Pipeline.of(what, [20, 24, 20], 8.0)
    files = {"oct": nifti_of(layers()), "ct": scan(0, "ct"), "fundus": png(disc())}
    together = prepare(pipeline, files)
    assert together.left_out == {}
    for name, data in files.items():
        alone = prepare(pipeline, {name: data})
        assert_array_equal(alone.images[name], together.images[name])
    assert together.grid is not None
    assert prepare(pipeline, {"oct": files["oct"]}).grid is None
    shapes = {name: tensor.shape for name, tensor in pipeline.tensors(together).items()}
    assert shapes == {"oct": (1, 16, 24, 8), "ct": (1, 20, 24, 20), "fundus": (3, 40, 40)}
    told = {entry["modality"]: album.told(entry) for entry in together.history}
    assert told["fundus"] == ["240 x 200 pixels, field of view to 40 x 40",
                              "z-score within the field of view"]  # fmt: skip
    assert told["oct"][1] == "16 x 24 x 8 of 0.25 x 0.04 x 0.5 mm"


def test_a_subject_without_the_photo_and_one_with_a_broken_one_are_trained_on() -> None:
    what, store = task(fundus=FUNDUS, oct=OCT), MemoryStore()
    rows = ["participant_id\tdiagnosis\tconsent"]
    for number in range(8):
        subject = f"sub-{number}"
        rows.append(f"{subject}\t{what.classes[number % 2]}\tpurpose")
        store.put(f"{subject}/oct/{subject}_oct.nii.gz", nifti_of(layers()))
        if number:
            photo = png(disc()) if number > 1 else b"\x89PNG"
            store.put(f"{subject}/fundus/{subject}_fundus.png", photo)
    store.put("participants.tsv", "\n".join(rows).encode())
    splits = bids.dataset(SiteData(what, store, "purpose"), fractions=(1, 0, 0))
    split = splits["train"]
    inputs, _ = split.collate([split[i] for i in range(len(split))])
    assert inputs["fundus"].shape == (8, 3, 40, 40)
    assert inputs["present"].sum(dim=0).tolist() == [6, 8]
    assert (inputs["fundus"][:2] == 0).all()
    assert split.summary.left_out == {"not a photo": 1}
    module = classifier(what, width=4).train()
    module(inputs).sum().backward()
    assert all(p.grad is not None for p in module.encoder.parameters())


def test_a_hospital_looks_at_its_eyes() -> None:
    """``fedcore site prepare --pictures --every``: both as they are seen, each in its column."""
    what, store = task(fundus=FUNDUS, oct=OCT), MemoryStore()
    what = what.model_copy(update={"preprocessing": Preprocessing()})
    store.put("participants.tsv", b"participant_id\tdiagnosis\tconsent\nsub-1\till\tpurpose\n")
    store.put("sub-1/oct/sub-1_oct.nii.gz", nifti_of(layers()))
    store.put("sub-1/fundus/sub-1_fundus.png", png(disc()))
    drawn: dict[str, bytes] = {}
    done = prepare_ahead(
        what, store, "purpose", workers=1, on_picture=drawn.__setitem__, every_picture=True
    )
    assert (done.images, done.left_out) == ({"fundus": 1, "oct": 1}, {})
    page = np.asarray(Image.open(io.BytesIO(drawn["sub-1"]))).astype(int)
    assert page.shape[1] == 6 + 2 * (208 + 6), "two columns, and none laid over the other"
    photo, scan = page[44 : 44 + 208, 6 : 6 + 208], page[44 : 44 + 100, 220 : 220 + 208]
    down, right = np.unravel_index(photo[..., 2].argmax(), (208, 208))
    assert (right, down) == (pytest.approx(156, abs=15), pytest.approx(104, abs=15))
    depth = scan[..., 0].mean(axis=1)
    assert 35 < depth.argmax() < 65, "the bright layer is in the middle"
    assert depth[15:25].mean() < depth[75:85].mean(), "the vitreous is on top"


def test_a_served_model_takes_the_same_files() -> None:
    what = task(fundus=FUNDUS, oct=OCT)
    files = {"fundus": png(disc()), "oct": nifti_of(layers())}
    served = scans.prepared(files, what.model_dump(mode="json"), max_bytes=2**24)
    assert served["fundus"].shape == (1, 3, 40, 40)
    assert_array_equal(served["oct"][0, 0], prepare(Pipeline.of(what), files).images["oct"])
    with pytest.raises(DataError, match="fundus: this is neither PNG nor JPEG"):
        scans.prepared({"fundus": b"GIF89a"}, what.model_dump(mode="json"), max_bytes=2**24)
