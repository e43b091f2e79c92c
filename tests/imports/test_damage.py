"""Files of every kind of damage: each used or set aside with a reason, and never a traceback."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom.data
import pytest
import scans
from pydicom import dcmread
from scans import outcomes, series, write

from fedcore.data.phantoms import dicom
from fedcore.imports import records
from fedcore.imports.masks import referenced
from fedcore.imports.reasons import Reason
from fedcore.store.memory import MemoryStore


def _flip(data: bytes, rng: random.Random) -> bytes:
    copy = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        copy[rng.randrange(len(copy))] = rng.randrange(256)
    return bytes(copy)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _splice(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:]


def _fill(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    junk = rng.choice([b"\xff", b"\0", b"\x7f"]) * rng.randint(1, 64)
    return data[:at] + junk + data[at + len(junk) :]


DAMAGE = (_flip, _cut, _splice, _fill)


def _reasoned(store: MemoryStore) -> None:
    """Whatever is not used has a reason of its own."""
    for outcome in outcomes(store):
        assert outcome.what == "used" or outcome.reason
        assert outcome.reason != Reason.INTERNAL, outcome.sentence
    for key in store.list(records.QUARANTINE):
        assert b"made the import fail" not in store.get(key)


def test_damaged_dicom(tmp_path: Path) -> None:
    """60 series, each with damage in a few of its files: header, pixels, anywhere."""
    rng = random.Random(20261129)
    for number in range(60):
        stack = series(rng.choice(["CT", "MR"]), patient=f"p{number}", name=number)
        folder = tmp_path / f"{number:02}"
        folder.mkdir()
        hurt = set(rng.sample(range(len(stack)), rng.randint(1, 3)))
        for index, image in enumerate(stack):
            data = dicom.file(image)
            if index in hurt:
                head, pixels = data[:-584], data[-584:]
                change = rng.choice(DAMAGE)
                data = change(head, rng) + pixels if rng.random() < 0.8 else change(data, rng)
            (folder / f"{index}.dcm").write_bytes(data)
    store = MemoryStore()
    scans.bring(tmp_path, store)
    _reasoned(store)
    whats = [outcome.what for outcome in outcomes(store)]
    assert whats.count("quarantined") >= 20
    assert whats.count("used") >= 5


def test_damaged_nifti(tmp_path: Path) -> None:
    rng = random.Random(20261130)
    made: Any = nibabel.Nifti1Image(scans.voxels(), scans.affine())
    sound = made.to_bytes()
    for number in range(120):
        change = rng.choice(DAMAGE)
        data = change(sound[:352], rng) + sound[352:] if number % 2 else change(sound, rng)
        data = gzip.compress(data, 1) if number % 3 else change(gzip.compress(sound, 1), rng)
        path = tmp_path / f"p{number}" / "t1.nii.gz"
        path.parent.mkdir()
        path.write_bytes(data)
    store = scans.bring(tmp_path)
    _reasoned(store)
    whats = [outcome.what for outcome in outcomes(store)]
    assert len(whats) == 120
    assert 20 <= whats.count("used") <= 100


@pytest.mark.parametrize("what", ["RTSTRUCT", "SEG"])
def test_a_damaged_mask(tmp_path: Path, what: str) -> None:
    rng = random.Random(7)
    files = Path(pydicom.data.__file__).parent / "test_files"
    path = files / {"RTSTRUCT": "rtstruct.dcm", "SEG": "liver_1frame.dcm"}[what]
    data, known = path.read_bytes(), dcmread(path, force=True)
    stack = series("CT", patient=str(known.PatientID))
    on = next(iter(referenced(known)), None)
    for image in stack if on else ():
        image.SeriesInstanceUID = on
    write(tmp_path, stack)
    for number in range(20):
        change = rng.choice(DAMAGE)
        (tmp_path / f"{number}.dcm").write_bytes(change(data, rng))
    _reasoned(scans.bring(tmp_path))


def test_pydicom_s_own_files() -> None:
    """All that ship with it: odd syntaxes, missing tags, truncated pixels, private sequences."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    number = sum(path.is_file() for path in folder.rglob("*"))
    assert number > 100
    store = MemoryStore()
    scans.tally(folder, store)
    _reasoned(store)
    assert [o.modality for o in outcomes(store) if o.what == "used"] == ["ct"]
    before = dict(store._objects)
    assert scans.tally(folder, store).studies["imported"] == 0
    assert store._objects == before


@pytest.mark.parametrize("name", [
    "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm",
])  # fmt: skip
def test_compressed_and_other_syntaxes_give_the_same_voxels(tmp_path: Path, name: str) -> None:
    """The same slice eight times over, at eight places."""
    plain, packed = (_stack("MR_small.dcm"), _stack(name))
    found = []
    for number, stack in enumerate((plain, packed)):
        store = scans.bring(write(tmp_path / str(number), stack))
        found.append(scans.image(store, scans.only(store).files[0]))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.ptp(found[0][0]) > 100
    assert np.allclose(found[0][1], found[1][1])


def _stack(name: str) -> list[Any]:
    path = Path(pydicom.data.__file__).parent / "test_files" / name
    stack = []
    for index in range(8):
        image = dcmread(path)
        image.SOPInstanceUID = dicom.uid(name, index)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber, image.SeriesDescription = index + 1, "T1"
        image.ImagePositionPatient = ["0", "0", str(3 * index)]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        stack.append(image)
    return stack


def test_a_syntax_that_nobody_here_can_read_is_said(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    stack = series("CT")
    for image in stack:
        image.PixelData = encapsulate([b"\xff\xd8 12-bit JPEG \xff\xd9"])
        image["PixelData"].is_undefined_length = True
        image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.51"
    outcome = scans.only(scans.bring(write(tmp_path, stack)))
    assert outcome.reason == "unknown compression"
    assert "JPEG with 12 bits" in str(outcome.sentence)
