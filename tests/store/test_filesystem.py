import os
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from fedcore.errors import AccessDenied, ConfigError, Conflict, NotFound, StoreUnavailable
from fedcore.store import filesystem
from fedcore.store.filesystem import FilesystemStore


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/etc/passwd", "a//b", "", ".", "a/.", "nul\0", ".fedcore-x"]
)
def test_no_key_leads_out_of_the_folder(store: FilesystemStore, key: str) -> None:
    for attempt in (store.get, store.exists, store.delete, lambda k: store.put(k, b"")):
        with pytest.raises(AccessDenied):
            attempt(key)


def test_listing_cannot_leave_the_folder(store: FilesystemStore) -> None:
    with pytest.raises(AccessDenied):
        list(store.list("../"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hospital"):
        FilesystemStore(tmp_path / "hospital")


def test_reading_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_bytes(b"participant_id")
    before = os.stat(tmp_path).st_mtime_ns
    store = FilesystemStore(tmp_path)
    assert list(store.list()) == ["participants.tsv"]
    assert store.get("participants.tsv") == b"participant_id"
    assert not store.exists("other")
    store.delete("other")
    assert files_below(tmp_path) == ["participants.tsv"]
    assert os.stat(tmp_path).st_mtime_ns == before


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "disk2" / "sub-01", tmp_path / "bids"
    elsewhere.mkdir(parents=True)
    root.mkdir()
    (elsewhere / "scan").write_bytes(b"scan")
    (root / "sub-01").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(elsewhere)
    (root / "annexed").symlink_to("nowhere")
    store = FilesystemStore(root)
    assert list(store.list()) == ["sub-01/scan"]
    assert store.get("sub-01/scan") == b"scan"
    with pytest.raises(NotFound, match="annexed"):
        store.get("annexed")


def test_temporary_files_are_neither_listed_nor_left(
    store: FilesystemStore, tmp_path: Path
) -> None:
    (tmp_path / ".fedcore-0123456789abcdef").write_bytes(b"of a writer that was killed")
    store.put("a/key", b"1")
    assert not store.create("a/key", b"2")
    assert list(store.list()) == ["a/key"]
    assert files_below(tmp_path / "a") == ["key"]


def test_an_object_is_no_folder(store: FilesystemStore) -> None:
    store.put("a", b"")
    with pytest.raises(Conflict, match="a/b/c"):
        store.put("a/b/c", b"")
    store.put("d/e", b"")
    with pytest.raises(Conflict, match="'d'"):
        store.put("d", b"")


def test_a_name_too_long_for_the_disk(store: FilesystemStore) -> None:
    with pytest.raises(ConfigError, match="too long"):
        store.put("x" * 300, b"")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 256 kB: a real full disk where we may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount; test_a_file_that_cannot_grow covers the rest")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("write", ["put", "create", "replace"])
def test_a_full_disk_is_temporary_and_harms_nothing(small_disk: Path, write: str) -> None:
    store = FilesystemStore(small_disk)
    store.put("kept", b"old")
    version, large = store.get_versioned("kept").version, bytes(500_000)
    attempts = {
        "put": lambda: store.put("kept", large),
        "create": lambda: store.create("new", large),
        "replace": lambda: store.replace("kept", large, version),
    }
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        attempts[write]()
    assert store.get("kept") == b"old"
    assert list(store.list()) == ["kept"]
    assert files_below(small_disk) == [".fedcore-lock", "kept"]
    store.put("small", b"there is room again")


def test_a_file_that_cannot_grow(store: FilesystemStore, tmp_path: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
    try:
        with pytest.raises(StoreUnavailable, match="File too large"):
            store.put("key", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert files_below(tmp_path) == []


def test_a_folder_without_rights(store: FilesystemStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filesystem.os, "open", refuse)  # root, who runs CI, has every right
    with pytest.raises(AccessDenied, match="Permission denied"):
        store.put("key", b"")


def _try_to_create(root: Path, i: int) -> bool:
    return FilesystemStore(root).create("contested", b"%d" % i * 100_000)


def test_of_processes_that_create_one_wins(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        won = list(pool.map(_try_to_create, [tmp_path] * 16, range(16)))
    assert won.count(True) == 1
    winner = b"%d" % won.index(True) * 100_000
    assert FilesystemStore(tmp_path).get("contested") == winner


def test_the_lock_is_for_its_owner(store: FilesystemStore, tmp_path: Path) -> None:
    store.put("key", b"")
    assert stat.S_IMODE((tmp_path / ".fedcore-lock").stat().st_mode) == 0o600
