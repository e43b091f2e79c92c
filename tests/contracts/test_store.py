"""What the Store protocol says, asked of every implementation."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedcore.errors import BlobError, NotFound
from fedcore.store.api import Store
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.memory import MemoryStore

KEYS = [
    "plain",
    "params/run-1/00001.safetensors",
    "sub-01/anat/sub-01_T1w.nii.gz",
    "with space/and+plus&and=more?#%25",
    "Universitätsklinikum/Æ/脳/🧠.json",
    ".bidsignore",
    "a" * 200 + "/" + "b" * 200,
]


@pytest.fixture(params=["memory", "filesystem", pytest.param("s3", marks=pytest.mark.e2e)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return request.getfixturevalue("s3_store")
    return MemoryStore() if request.param == "memory" else FilesystemStore(tmp_path)


def at_once(num_threads: int, work: Callable[[int], object]) -> list[object]:
    """What ``work(i)`` gives in threads that begin together."""
    barrier = threading.Barrier(num_threads)

    def begin(i: int) -> object:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(begin, range(num_threads)))


@pytest.mark.parametrize("key", KEYS)
def test_what_was_put_is_got(store: Store, key: str) -> None:
    store.put(key, b"scan")
    assert store.get(key) == b"scan"
    assert store.get_versioned(key).data == b"scan"
    assert store.exists(key)
    assert list(store.list()) == [key]


def test_put_replaces(store: Store) -> None:
    store.put("key", b"a longer old value")
    store.put("key", b"new")
    assert store.get("key") == b"new"


def test_an_empty_object_is_an_object(store: Store) -> None:
    assert store.create("empty", b"")
    assert store.exists("empty")
    assert store.get("empty", max_bytes=0) == b""
    assert not store.create("empty", b"more")


def test_any_bytes_survive(store: Store) -> None:
    data = bytes(range(256)) * 40_000  # over SeaweedFS's 4 MB chunks
    store.put("binary", data)
    assert store.get("binary") == data


def test_what_is_absent_is_not_found(store: Store) -> None:
    store.put("folder/object", b"")
    for key in ("nothing", "folder", "folder/object/below"):
        assert not store.exists(key)
        with pytest.raises(NotFound, match=key):
            store.get(key)
        with pytest.raises(NotFound, match=key):
            store.get_versioned(key)


def test_get_refuses_more_than_max_bytes(store: Store) -> None:
    store.put("key", b"12345")
    assert store.get("key", max_bytes=5) == b"12345"
    with pytest.raises(BlobError, match=r"key has 5 bytes; at most 4"):
        store.get("key", max_bytes=4)


def test_create_writes_once(store: Store) -> None:
    assert store.create("key", b"first")
    assert not store.create("key", b"second")
    assert store.get("key") == b"first"


def test_of_many_who_create_one_wins(store: Store) -> None:
    won = at_once(16, lambda i: store.create("contested", b"%02d" % i * 5000))
    assert won.count(True) == 1
    assert store.get("contested") == b"%02d" % won.index(True) * 5000


def test_replace_needs_the_version_read(store: Store) -> None:
    store.put("champion", b"1")
    old = store.get_versioned("champion")
    assert store.replace("champion", b"2", old.version)
    assert not store.replace("champion", b"3", old.version)
    assert store.get("champion") == b"2"
    assert store.replace("champion", b"3", store.get_versioned("champion").version)


def test_replace_of_nothing_writes_nothing(store: Store) -> None:
    store.put("other", b"1")
    assert not store.replace("absent", b"2", store.get_versioned("other").version)
    assert not store.exists("absent")


def test_of_many_who_replace_one_wins(store: Store) -> None:
    store.put("contested", b"start")
    version = store.get_versioned("contested").version
    won = at_once(16, lambda i: store.replace("contested", b"%02d" % i * 5000, version))
    assert won.count(True) == 1
    assert store.get("contested") == b"%02d" % won.index(True) * 5000


def test_a_counter_loses_no_increment(store: Store) -> None:
    store.put("counter", b"0")

    def increment(_: int) -> None:
        while True:
            data, version = store.get_versioned("counter")
            if store.replace("counter", b"%d" % (int(data) + 1), version):
                return

    at_once(6, increment)
    assert store.get("counter") == b"6"


def test_readers_see_the_old_or_the_new(store: Store) -> None:
    old, new = b"o" * 3_000_000, b"n" * 2_000_000
    store.put("key", old)
    done = threading.Event()

    def work(i: int) -> set[bytes]:
        if i == 0:
            for data in (new, old) * 3:
                store.put("key", data)
            done.set()
        seen = set()
        while not done.is_set():
            seen.add(store.get("key"))
        return seen

    assert set().union(*at_once(3, work)) <= {old, new}


def test_list_is_sorted_and_knows_prefixes(store: Store) -> None:
    keys = ["sub-01.json", "sub-01/anat/b", "sub-01/anat/a", "sub-01/z", "sub-010/x", "sub/y"]
    for key in keys:
        store.put(key, b"")
    assert list(store.list()) == sorted(keys)
    assert list(store.list("sub-01/")) == ["sub-01/anat/a", "sub-01/anat/b", "sub-01/z"]
    assert list(store.list("sub-01")) == sorted(k for k in keys if k.startswith("sub-01"))
    assert list(store.list("sub-01/anat/a")) == ["sub-01/anat/a"]
    assert list(store.list("sub-02/anat")) == []


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert list(store.list()) == []


def test_list_goes_over_pages(store: Store) -> None:
    keys = [f"page/{number:04d}" for number in range(1010)]  # a page of S3 has 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("page/")) == keys


def test_delete_removes_and_may_be_repeated(store: Store) -> None:
    store.put("a/key", b"1")
    store.delete("a/key")
    store.delete("a/key")
    assert not store.exists("a/key")
    assert list(store.list()) == []
    assert store.create("a/key", b"2")
