"""Nothing that tells who a patient is gets into the bucket."""

from __future__ import annotations

import datetime
import gzip
import json
import stat
from pathlib import Path

import heads
import numpy as np
import pytest
import scans
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedcore.data import brain
from fedcore.data.preprocess import Grid, resample, resample_mask
from fedcore.errors import ConfigError
from fedcore.imports import secret as secrets
from fedcore.imports.deface import deface
from fedcore.imports.deidentify import deidentify
from fedcore.imports.job import Journal
from fedcore.imports.reasons import Unfit
from fedcore.imports.secret import Secret
from fedcore.imports.visits import Volume

GRID = Grid((92, 110, 92), 2.0, (0.0, -18.0, 18.0))
NAME, NUMBER = "Featherstonehaugh", "PATNR99887766"


def marked() -> list[Dataset]:
    """A series with the patient's name wherever a name may hide."""
    stack = scans.series(
        "MR", patient=NUMBER, PatientName=f"{NAME}^Jane", InstitutionName=NAME, StationName=NAME,
        StudyDescription=NAME, SeriesDescription=f"T1 {NAME}", ProtocolName=NAME,
        ImageComments=NAME, PatientComments=NAME, AccessionNumber=NAME, OperatorsName=NAME,
        ReferringPhysicianName=NAME, StudyID=NAME[:16], DeviceSerialNumber=NUMBER,
        AdditionalPatientHistory=NAME, RequestedProcedureDescription=NAME,
    )  # fmt: skip
    for image in stack:
        inner = Dataset()
        inner.PatientName, inner.PatientID, inner.StudyDate = NAME, NUMBER, "20210310"
        inner.PerformingPhysicianName = NAME
        image.ReferencedStudySequence = Sequence([inner])
        image.DerivationCodeSequence = Sequence([inner])
        image.private_block(0x0029, NAME, create=True).add_new(1, "LO", NAME)
        image.add_new(0x60003000, "OW", NAME.encode() + b" ")
    return stack


def test_no_word_of_it_is_in_the_bucket(tmp_path: Path) -> None:
    store = scans.bring(scans.write(tmp_path, marked()))
    assert scans.only(store).what == "used"
    for key in store.list():
        data = store.get(key)
        data = gzip.decompress(data) if key.endswith(".gz") else data
        for word in (NAME, NUMBER, "2021", "19700512"):
            assert word not in key, key
            assert word.encode() not in data, (key, word)


def test_the_profile_at_every_depth() -> None:
    image = marked()[0]
    original = {name: image[name].value for name in ("SOPInstanceUID", "FrameOfReferenceUID")}
    deidentify(image, NUMBER, scans.SECRET)
    text = str(image)
    for word in (NAME, NUMBER, "20210310", "19700512"):
        assert word not in text
    assert not [e for e in image.iterall() if e.tag.is_private or e.tag.group >> 8 == 0x60]
    for name, uid in original.items():
        assert image[name].value == scans.SECRET.uid(uid)
    assert image.SOPClassUID == scans.series("MR")[0].SOPClassUID
    assert image.PixelData == marked()[0].PixelData


def test_pseudonyms_follow_from_the_secret_alone() -> None:
    other = Secret(b"z" * 32)
    assert scans.SECRET.subject("4711") == scans.SECRET.subject(" 4711")
    assert scans.SECRET.subject("4711") != other.subject("4711")
    assert scans.SECRET.subject("4711").startswith("sub-")
    assert scans.SECRET.uid("1.2").startswith("2.25.")
    assert len(scans.SECRET.uid("1.2")) <= 64
    assert len({scans.SECRET.subject(str(i)) for i in range(5000)}) == 5000


@pytest.mark.parametrize("year", [1953, 1999, 2013, 2014, 2026, 2099])
def test_dates_move_by_the_patient_s_own_days(year: int) -> None:
    before, after = datetime.date(year, 12, 30), datetime.date(year + 1, 1, 2)
    moved = [scans.SECRET.shifted(day, "4711") for day in (before, after)]
    assert moved[1] - moved[0] == after - before
    assert moved[1].year < 1925
    assert scans.SECRET.shifted(before, "4712") != moved[0]


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "site" / "secret"
    made = secrets.load(path)
    assert secrets.load(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.key.hex() not in repr(made)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        secrets.load(path)
    path.chmod(0o600)
    path.write_text("abcd")
    with pytest.raises(ConfigError, match="are no secret"):
        secrets.load(path)


def test_the_journal_leads_back_to_the_patient(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    store = scans.bring(scans.write(tmp_path / "in", scans.series("CT")), note=journal.note)
    (key,) = store.list("derivatives/fedcore/import/")
    patient, uid = journal.read()[json.loads(store.get(key))["study"]]
    assert (patient, uid) == ("4711", scans.series("CT")[0].StudyInstanceUID)
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("modality", ["t1ce", "ct"])
def test_a_face_is_cut_off_and_the_brain_stays(modality: str) -> None:
    """A head as a scanner may store it, its axes to the left, the back and the feet."""
    ras = heads.head(0, modality)
    turned = np.diag([-1.0, -1.0, -1.0, 1.0])
    turned[:3, 3] = np.array(ras.voxels.shape) - 1
    volume = Volume(ras.voxels[::-1, ::-1, ::-1].copy(), ras.affine @ turned)
    cut = deface(volume, modality)
    gone = (cut.voxels != volume.voxels)[::-1, ::-1, ::-1]
    assert cut.notes == ("face removed (Quickshear)",)
    _, y, z = np.array(np.nonzero(gone)).mean(axis=1)
    assert y > 0.6 * gone.shape[1], "in front"
    assert z < 0.4 * gone.shape[2], "below"
    assert gone.mean() > 0.01
    found = brain.brain(resample(*ras, GRID), "ct" if modality == "ct" else "mr", 2.0)
    kept = resample_mask(~gone, ras.affine, GRID)
    assert (found & ~kept).sum() < 0.001 * found.sum()


def test_where_no_brain_is_found_nothing_is_used() -> None:
    ball = Volume(np.ones((20, 20, 20), np.float32), scans.affine())
    with pytest.raises(Unfit, match="ml"):
        deface(ball, "t1")
    assert deface(ball, "pet") is ball
