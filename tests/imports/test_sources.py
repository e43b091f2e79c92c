"""The same studies out of a folder, a zip, a DICOMDIR; and what an archive may not do."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import scans
from pydicom.fileset import FileSet
from scans import outcomes, series, write

from fedcore.errors import ConfigError, DataError
from fedcore.imports.sources import open_source
from fedcore.store.memory import MemoryStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "in", series("CT"), series("MR", patient="2"))


def images(store: MemoryStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("sub-")}


def test_a_zip_gives_what_its_folder_gives(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*.dcm")):
            file.write(path, path.relative_to(folder))
    store = scans.bring(archive)
    assert images(store) == images(scans.bring(folder)) != {}
    assert scans.tally(folder, store).studies == {"known": 2}


def test_a_dicomdir_gives_what_it_lists(folder: Path, tmp_path: Path) -> None:
    medium = FileSet()
    for path in sorted(folder.rglob("*.dcm")):
        medium.add(path)
    medium.write(tmp_path / "medium")
    listed = tmp_path / "medium" / "DICOMDIR"
    store = scans.bring(listed)
    assert images(store) == images(scans.bring(folder)) != {}
    assert images(scans.bring(listed.parent)) == images(store), "the folder, DICOMDIR and all"
    next(path for path in listed.parent.rglob("*") if path.is_file() and path != listed).unlink()
    store = scans.bring(listed)
    assert len(outcomes(store)) == 2
    (key,) = store.list("derivatives/fedcore/quarantine/files_")
    assert b"file is missing" in store.get(key)


def test_a_member_cannot_leave_the_scratch_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a/b/export.zip"
    archive.parent.mkdir(parents=True)
    names = ["../../evil.dcm", "/tmp/evil-fedcore.dcm", "C:\\evil.dcm", "..\\evil.dcm", "ok/1.dcm"]
    with zipfile.ZipFile(archive, "w") as file:
        for name, path in zip(names, sorted(folder.rglob("*.dcm")), strict=False):
            file.write(path, name)
    store = scans.bring(archive)
    assert [o.reason for o in outcomes(store)] == [None]
    assert not [p for p in tmp_path.rglob("evil*") if p.is_file()]
    assert not Path("/tmp/evil-fedcore.dcm").exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.dcm", bytes(64 * 2**20))
    with pytest.raises(DataError, match="bomb") as told:
        scans.bring(archive)
    assert told.value.reason == "unsafe archive"


def test_a_member_that_says_less_than_it_holds(tmp_path: Path) -> None:
    archive = tmp_path / "lie.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.dcm", b"x" * 5000)
    data = archive.read_bytes()
    size = (5000).to_bytes(4, "little")
    archive.write_bytes(data.replace(size, (50).to_bytes(4, "little")))
    store = scans.bring(archive)
    (key,) = store.list("derivatives/fedcore/quarantine/files_")
    assert b"unreadable file" in store.get(key)


def test_a_damaged_archive_is_said(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.dcm")):
            file.write(path, path.relative_to(folder))
    data = bytearray(archive.read_bytes())
    data[600:700] = bytes(100)  # within the first member: its checksum tells
    archive.write_bytes(data)
    store = scans.bring(archive)
    assert len(list(store.list("derivatives/fedcore/quarantine/files_"))) == 1
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match="neither a folder"):
        open_source(str(archive))


def test_no_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder or file"):
        open_source(str(tmp_path / "nothing"))


def test_a_study_of_two_patients_is_nobody_s(tmp_path: Path) -> None:
    mixed = series("CT")
    mixed[3].PatientID = "somebody else"
    store = scans.bring(write(tmp_path, mixed))
    assert not outcomes(store)
    (key,) = store.list("derivatives/fedcore/quarantine/files_")
    assert store.get(key).count(b"one series of two patients") == 8
