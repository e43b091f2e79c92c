"""A folder of DICOM becomes BIDS; each thing that can be wrong with a series has its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans
from faults import FaultyStore, Killed
from scans import image, only, outcomes, same, series, write

from fedcore.config.task import Task
from fedcore.data import bids
from fedcore.data.site import SiteData
from fedcore.errors import ConfigError
from fedcore.imports import dicoms, records
from fedcore.imports import rules as all_rules
from fedcore.imports.convert import as_nifti, convert
from fedcore.imports.job import Journal, run
from fedcore.imports.run import Importer
from fedcore.imports.secret import Secret
from fedcore.imports.sources import open_source
from fedcore.store.memory import MemoryStore


def test_a_ct_in_hounsfield_units_where_it_was(tmp_path: Path) -> None:
    store = scans.bring(write(tmp_path, series("CT", intercept=-1024.0)))
    found = only(store)
    assert (found.what, found.modality) == ("used", "ct")
    assert same(image(store, found.files[0]), scans.voxels() - 1024.0, scans.affine())
    sidecar = json.loads(store.get(found.files[1]))
    assert (sidecar["Modality"], sidecar["Units"]) == ("CT", "HU")
    assert sidecar["Manufacturer"] == "ACME"


@pytest.mark.parametrize("directions", ["axial", "sagittal", "oblique"])
def test_an_mr_of_any_direction(tmp_path: Path, directions: str) -> None:
    place = scans.affine()
    if directions == "sagittal":
        place[:3, :3] = place[:3, [2, 0, 1]]
    if directions == "oblique":
        a, b = np.deg2rad(25), np.deg2rad(-12)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        tip = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        place[:3, :3] = turn @ tip @ place[:3, :3]
    store = scans.bring(write(tmp_path, series("MR", place=place)))
    assert same(image(store, only(store).files[0]), scans.voxels(), place)


def test_a_tilted_gantry_is_kept_as_a_shear(tmp_path: Path) -> None:
    """Every voxel is where the scanner says: dcm2niix's own correction is centimetres off."""
    place = scans.tilted(18.0)
    store = scans.bring(write(tmp_path, series("CT", place=place, GantryDetectorTilt="18")))
    assert same(image(store, only(store).files[0]), scans.voxels(), place)
    assert "shear" in only(store).notes[0]


def test_a_head_ct_with_finer_slices_at_the_base_is_made_even(tmp_path: Path) -> None:
    stack = series("CT", image=np.repeat(np.arange(8, dtype=np.int16) * 100, 288).reshape(
        8, 16, 18).transpose(1, 2, 0))  # fmt: skip
    heights = [7, 10, 13, 16, 19, 25, 31, 37]
    for slice_, z in zip(stack, heights, strict=True):
        slice_.ImagePositionPatient[2] = str(z)
    store = scans.bring(write(tmp_path, stack))
    data, matrix = image(store, only(store).files[0])
    assert data.shape[2] == 11
    assert matrix[2, 2] == pytest.approx(3.0)
    assert [scans.world((data, matrix), (0, 0, z)) for z in (7, 19, 25, 37)] == [0, 400, 500, 700]
    assert "uneven" in only(store).notes[0]


def _drop(*indices: int) -> scans.Change:
    def change(stack: list[Any]) -> None:
        for index in sorted(indices, reverse=True):
            del stack[index]

    return change


def _set(index: int | slice, **fields: Any) -> scans.Change:
    def change(stack: list[Any]) -> None:
        for slice_ in stack[index] if isinstance(index, slice) else [stack[index]]:
            for name, value in fields.items():
                setattr(slice_, name, value)

    return change


def _again(**fields: Any) -> scans.Change:
    """The whole stack once more, with other UIDs."""

    def change(stack: list[Any]) -> None:
        from copy import deepcopy

        for slice_ in deepcopy(stack):
            slice_.SOPInstanceUID += ".1"
            slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
            for name, value in fields.items():
                setattr(slice_, name, value)
            stack.append(slice_)

    return change


@pytest.mark.parametrize(("change", "reason"), [
    (lambda stack: None, None),
    (_drop(3), "missing slices"),
    (_drop(2, 3, 4), "missing slices"),
    (_drop(*range(5)), "too few slices"),
    (_again(), "more than one volume"),
    (_set(3, ImageOrientationPatient=[1, 0, 0, 0, 0.9, 0.436]), "slices of different geometry"),
    (_set(slice(None), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "wrong orientation"),
    (_set(slice(None), ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), "wrong orientation"),
    (_set(2, ImagePositionPatient=None), "no position in space"),
    (_set(slice(None), PixelSpacing=["0", "0"]), "no position in space"),
    (_set(4, ImagePositionPatient=["0", "0", "17.7"]), "irregular spacing"),
    (_set(2, PixelData=b"\1" * 10), "damaged pixels"),
    (_set(slice(None), BurnedInAnnotation="YES"), "burned-in text"),
    (_set(slice(None), Rows=60000, Columns=60000), "too large"),
])  # fmt: skip
def test_what_is_wrong_is_said(tmp_path: Path, change: scans.Change, reason: str | None) -> None:
    stack = series("CT", image=scans.voxels(shape=(16, 18, 8)))
    change(stack)
    found = only(scans.bring(write(tmp_path, stack)))
    assert found.reason == reason, found.sentence
    assert found.what == ("used" if reason is None else "quarantined")


def test_a_slice_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    stack = series("CT")
    twice = series("CT")[3]
    twice.SOPInstanceUID += ".1"
    twice.file_meta.MediaStorageSOPInstanceUID = twice.SOPInstanceUID
    store = scans.bring(write(tmp_path / "a", [*stack, twice]))
    assert same(image(store, only(store).files[0]), scans.voxels(), scans.affine())
    assert only(store).notes == ("1 repeated slices left out",)
    twice.PixelData = bytes(len(twice.PixelData))
    assert scans.reason(tmp_path / "b", [*stack, twice]) == "conflicting slices"


def test_one_bad_study_stops_nothing(tmp_path: Path) -> None:
    bad = series("CT", patient="bad")
    del bad[4].PixelData
    source = write(tmp_path, series("CT", patient="good"), bad, series("MR", patient="good too"))
    (tmp_path / "broken.dcm").write_bytes(b"not at all")
    (tmp_path / "README.txt").write_text("no image")
    store = scans.bring(source)
    assert sorted(o.what for o in outcomes(store)) == ["quarantined", "used", "used"]
    rows = store.get("participants.tsv").decode().splitlines()
    assert len(rows) == 3
    kept = [json.loads(store.get(key)) for key in store.list(records.QUARANTINE)]
    assert [i["reason"] for entry in kept for i in entry["items"]] == [
        "unreadable file", "damaged pixels"
    ]  # fmt: skip
    assert all(item["remedy"] for entry in kept for item in entry["items"])


def test_a_run_counts_what_is_in_quarantine(tmp_path: Path) -> None:
    bad = series("CT", patient="bad")
    del bad[4]
    store = scans.bring(write(tmp_path, bad, series("CT", patient="half"),
                              series("MR", patient="half")[:3]))  # fmt: skip
    task = Task.model_validate({
        "classes": ["a", "b"], "modalities": {"ct": {"kind": "ct", "path": "ct/*_ct.nii.gz",
                                                     "window": [0, 800]}},
        "dataset": {"function": "fedcore.data.bids:dataset"}, "model": {"function": "m:m"},
    })  # fmt: skip
    table = store.get("participants.tsv").replace(b"\tn/a\t\n", b"\ta\tstudy\n")
    store.put("participants.tsv", table)
    parts = bids.dataset(SiteData(task, store, "study"), shape=(8, 8, 8), spacing_mm=4.0)
    left = [reason for part in parts.values() for reason in part.summary.left_out.items()]
    assert sorted(left) == [("quarantined: missing slices", 1), ("quarantined: too few slices", 1)]
    assert sum(len(part) for part in parts.values()) == 1


def test_the_site_s_list_gives_diagnosis_and_consent(tmp_path: Path) -> None:
    from fedcore.imports import table

    source = write(tmp_path, series("CT", patient="1"), series("CT", patient="2"))
    listed = tmp_path / "list.csv"
    listed.write_text("patient_id;diagnosis;consent;name\n1;glioma;study;Jane\n")
    people = table.people(listed, scans.SECRET, ())
    store = scans.bring(source, people=people)
    rows = sorted(
        line.split("\t")[1:] for line in store.get("participants.tsv").decode().splitlines()
    )
    assert rows == [
        ["F", "50", "ACME One", "glioma", "study"],
        ["F", "50", "ACME One", "n/a", ""],
        ["sex", "age", "scanner", "diagnosis", "consent"],
    ]
    scans.bring(source, store)
    assert b"glioma\tstudy" in store.get("participants.tsv"), "without a list nothing is forgotten"
    listed.write_text("patient_id,consent\n1,n/a\n2,study\n")
    scans.bring(source, store, people=table.people(listed, scans.SECRET, ()))
    assert b"glioma\tn/a" in store.get("participants.tsv")
    listed.write_text("patient_id,consent\n1,n/a\n 1,study\n")
    with pytest.raises(ConfigError, match=r"list.csv:3: the patient is listed twice"):
        table.people(listed, scans.SECRET, ())


def test_twice_the_same_changes_nothing_and_a_new_study_is_added(tmp_path: Path) -> None:
    source = write(tmp_path / "a", series("CT"), series("MR", study="two")[:3])
    store = MemoryStore()
    assert scans.tally(source, store).studies == {"imported": 2}
    before = dict(store._objects)
    watched = FaultyStore(store, at=-1)
    assert scans.tally(source, watched).studies == {"known": 2}
    assert store._objects == before
    assert not [o for o in watched.operations if o.startswith(("put", "replace", "delete"))]
    write(tmp_path / "a/more", series("CT", patient="another"))
    assert scans.tally(source, store).studies == {"known": 2, "imported": 1}
    assert {k: v for k, v in store._objects.items() if k in before} | {
        "participants.tsv": before["participants.tsv"]
    } == before


def test_what_was_repaired_leaves_the_quarantine(tmp_path: Path) -> None:
    stack = series("CT")
    source = write(tmp_path, stack[:3] + stack[4:])
    store = scans.bring(source)
    assert list(store.list(records.QUARANTINE))
    scans.bring(write(tmp_path, stack), store)
    assert only(store).what == "used"
    assert not list(store.list(records.QUARANTINE))


def test_changed_rules_try_again_what_is_not_used(tmp_path: Path) -> None:
    source = write(tmp_path, series("CT"), series("CT", name="b", patient="2")[:4])
    store = scans.bring(source)
    kept = {k: store.get(k) for k in store.list("sub-")}
    easier = all_rules.load(None).model_copy(update={"min_slices": 4})
    scans.bring(source, store, rules=easier)
    assert [outcome.what for outcome in outcomes(store)] == ["used", "used"]
    assert kept.items() <= {k: store.get(k) for k in store.list("sub-")}.items()


def test_the_better_of_two_series_is_taken(tmp_path: Path) -> None:
    thick = series("MR", name="thick", SliceThickness="6")
    store = scans.bring(write(tmp_path, thick, series("MR", name="fine", SliceThickness="1")))
    assert sorted(o.what for o in outcomes(store)) == ["surplus", "used"]
    (used,) = [o for o in outcomes(store) if o.what == "used"]
    assert json.loads(store.get(used.files[1]))["SliceThickness"] == 1


def test_studies_near_in_time_are_one_session(tmp_path: Path) -> None:
    store = scans.bring(write(
        tmp_path, series("CT"), series("MR", study="b", StudyDate="20210401"),
        series("MR", study="c", StudyDate="20220101"),
    ))  # fmt: skip
    sessions = sorted(record.session for record in records.every(store))
    assert sessions[0] == sessions[1] != sessions[2]
    assert all("ses-18" in session for session in sessions), "no date that was"


def test_another_secret_is_refused(tmp_path: Path) -> None:
    store = scans.bring(write(tmp_path, series("CT")))
    with (
        pytest.raises(ConfigError, match="another secret"),
        Importer(store, Secret(b"x" * 32), all_rules.load(None)),
    ):
        pass


def test_killed_at_any_moment_it_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    done: dict[str, Any] = {}

    def once(instances: Any, *others: Any) -> Any:
        """The conversion, which writes nothing to the store, is made once."""
        key = instances[0].sop
        return done[key] if key in done else done.setdefault(key, convert(instances, *others))

    monkeypatch.setattr(dicoms, "convert", once)
    source = write(tmp_path, series("CT"), series("MR", study="b")[:3], series("CT", patient="2"))
    whole = MemoryStore()
    steps = FaultyStore(whole, at=-1)
    scans.bring(source, steps)
    for at in range(len(steps.operations)):
        store = MemoryStore()
        with pytest.raises(Killed):
            scans.bring(source, FaultyStore(store, at, before=at % 2 == 0))
        _no_half_subject(store, whole)
        scans.bring(source, store)
        assert store._objects == whole._objects, steps.operations[at]


def _no_half_subject(store: MemoryStore, whole: MemoryStore) -> None:
    """Whoever has a row has every file."""
    if not store.exists("participants.tsv"):
        return
    for line in store.get("participants.tsv").decode().splitlines()[1:]:
        subject = line.split("\t")[0]
        assert {k: store.get(k) for k in store.list(f"{subject}/")} == {
            k: whole.get(k) for k in whole.list(f"{subject}/")
        }


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_multi_frame_image_is_its_slices_in_one_file(tmp_path: Path, modality: str) -> None:
    from highdicom import legacy

    convert_to = {"CT": legacy.LegacyConvertedEnhancedCTImage,
                  "MR": legacy.LegacyConvertedEnhancedMRImage,
                  "PT": legacy.LegacyConvertedEnhancedPETImage}[modality]  # fmt: skip
    stack = scans.pet() if modality == "PT" else series(modality, slope=2.0)
    for slice_ in stack:
        slice_.ReferringPhysicianName = slice_.AccessionNumber = ""
        slice_.PositionReferenceIndicator = slice_.Laterality = ""
        slice_.BurnedInAnnotation = "NO"
    made = convert_to(
        stack, series_instance_uid=stack[0].SeriesInstanceUID + ".9", series_number=2,
        sop_instance_uid=stack[0].SOPInstanceUID + ".9", instance_number=1,
    )  # fmt: skip
    made.SeriesDescription = "T1"
    store = scans.bring(write(tmp_path, [made]))
    plain = scans.bring(write(tmp_path / "plain", stack))
    if modality == "PT":  # an enhanced PET has its unit elsewhere, by frame
        assert only(store).reason == "unknown PET unit"
        return
    one, many = (image(s, only(s).files[0]) for s in (store, plain))
    assert same(one, *many)


def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    """Of three patients, one with a study that cannot be used and one with a mask."""
    source = write(tmp_path / "in", series("CT"), series("MR", patient="2"),
                   series("CT", patient="2", study="b")[:3])  # fmt: skip
    for name in ("t1", "tumour_mask"):
        path = tmp_path / "in" / "3" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(as_nifti(scans.voxels(), scans.affine()))
    stores, steps = [], []

    def on_stage(name: str, _: int) -> Any:
        return lambda: steps.append(name)

    for workers in (1, 2):
        stores.append(MemoryStore())
        journal = Journal(tmp_path / f"{workers}.journal")
        importer = Importer(stores[-1], scans.SECRET, all_rules.load(None), workers=workers,
                            note=journal.note)  # fmt: skip
        tally = run(open_source(str(source)), importer, on_stage)
        assert (tally.studies["imported"], tally.series["used"]) == (4, 4)
        assert tally.series["quarantined"] == 1
        assert len(journal.read()) == 4
    assert steps.count("importing studies") == 8
    assert stores[0]._objects == stores[1]._objects


def test_the_journal_knows_what_the_bucket_knows(tmp_path: Path) -> None:
    """Killed at any moment: a study that will not be imported again is noted."""
    source, noted = write(tmp_path, series("CT")), []
    steps = FaultyStore(MemoryStore(), at=-1)
    scans.bring(source, steps)
    for at in range(len(steps.operations)):
        store = MemoryStore()
        noted.clear()
        with pytest.raises(Killed):
            scans.bring(source, FaultyStore(store, at, before=False),
                        note=lambda _, record: noted.append(record.study))  # fmt: skip
        assert {record.study for record in records.every(store)} <= set(noted)
