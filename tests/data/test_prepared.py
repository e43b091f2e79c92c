"""What was prepared is found again, and nothing else is: damaged, out of date or half written."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from heads import scan, site, task
from numpy.testing import assert_array_equal

from fedcore.data import preparation, preparing, subjects
from fedcore.data.prepared import FOLDER, Kept
from fedcore.data.preparing import Preparer
from fedcore.data.site import SiteData
from fedcore.data.workers import cpus
from fedcore.errors import AccessDenied, ServiceUnavailable
from fedcore.store.memory import MemoryStore

FILES = {"t1ce": scan(0, "t1ce"), "ct": scan(0, "ct")}
PIPELINE = preparation.Pipeline.of(task("t1ce", "ct"))


class Killed(BaseException):
    """As a process that is killed: nothing catches it."""


@dataclass
class Folder:
    """A store that can be killed, or may not be written to."""

    inner: MemoryStore = field(default_factory=MemoryStore)
    puts_left: int | None = None
    denied: bool = False

    def get(self, key: str) -> bytes:
        return self.inner.get(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self.inner.list(prefix)

    def put(self, key: str, data: bytes) -> None:
        if self.denied:
            raise AccessDenied(f"no writing to {key}")
        if self.puts_left is not None:
            if not self.puts_left:
                raise Killed
            self.puts_left -= 1
        self.inner.put(key, data)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry per subject that was prepared, and not found."""
    calls: list[str] = []

    def counted(*arguments: Any, **named: Any) -> preparation.Prepared:
        calls.append("made")
        return preparation.prepare(*arguments, **named)

    monkeypatch.setattr(preparing, "prepare", counted)
    return calls


def prepared(folder: Any, files: Any = FILES, pipeline: Any = PIPELINE) -> preparation.Prepared:
    return Preparer(pipeline, Kept(folder, "", pipeline))("sub-1", files, {})


def test_what_is_kept_is_the_same_to_the_bit(made: list[str]) -> None:
    folder = Folder()
    first, second = prepared(folder), prepared(folder)
    assert len(made) == 1
    assert list(second.images) == list(first.images)
    for name, image in first.images.items():
        assert_array_equal(second.images[name], image)
        assert second.images[name].dtype == image.dtype
    assert second.grid == first.grid
    assert second.left_out == first.left_out
    assert json.dumps(second.history) == json.dumps(first.history)
    keys = list(folder.list(FOLDER))
    assert len(keys) == 2
    assert all(f"{PIPELINE.digest[:16]}/sub-1/" in key for key in keys)


def test_the_history_lies_beside_it_for_people(made: list[str]) -> None:
    folder = Folder()
    prepared(folder)
    (key,) = (key for key in folder.list(FOLDER) if key.endswith(".json"))
    about = json.loads(folder.get(key))
    assert [step["step"] for step in about["images"][0]["steps"]] == [
        "orient", "resample", "normalise",
    ]  # fmt: skip
    assert about["libraries"]["numpy"]


def test_other_bytes_another_plan_or_another_version_is_made_anew(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder()
    prepared(folder)
    prepared(folder, {**FILES, "ct": scan(1, "ct")})
    prepared(folder, {"t1ce": FILES["t1ce"]})
    prepared(folder, pipeline=preparation.Pipeline.of(task("t1ce", "ct", spacing_mm=5.0)))
    monkeypatch.setitem(preparation.STEPS, "normalise", 2)
    prepared(folder)
    assert len(made) == 5
    prepared(folder)
    assert len(made) == 5


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "gone"])
def test_what_is_damaged_is_made_anew(ending: str, damage: str, made: list[str]) -> None:
    folder = Folder()
    first = prepared(folder)
    (key,) = (key for key in folder.list(FOLDER) if key.endswith(ending))
    data = folder.get(key)
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    damaged = {"cut": data[:-7], "flipped": flipped, "empty": b"", "other": b"{}"}
    if damage == "gone":
        folder.inner.delete(key)
    else:
        folder.put(key, damaged[damage])
    again = prepared(folder)
    assert len(made) == 2
    assert_array_equal(again.images["ct"], first.images["ct"])
    assert folder.get(key) == data, "written anew"


@pytest.mark.parametrize("puts", [0, 1])
def test_killed_in_the_middle_nothing_half_counts(puts: int, made: list[str]) -> None:
    folder = Folder(puts_left=puts)
    with pytest.raises(Killed):
        prepared(folder)
    folder.puts_left = None
    prepared(folder)
    prepared(folder)
    assert len(made) == 2


def test_a_credential_that_may_only_read_is_enough(
    made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(denied=True)
    with (
        caplog.at_level(logging.WARNING),
        Preparer(PIPELINE, Kept(folder, "", PIPELINE)) as preparer,
    ):
        for _ in range(2):
            assert preparer("sub-1", FILES, {}).images
    assert len(made) == 2
    assert len([r for r in caplog.records if "cannot be kept" in r.getMessage()]) == 1


def test_several_processes_give_what_one_gives() -> None:
    """And the second dataset finds all that the first made."""
    asked = task("t1ce", "ct")
    datasets = []
    for workers in (1, 2):
        store = MemoryStore()
        site(store, {f"sub-{n}": {m: scan(n % 2, m) for m in FILES} for n in range(3)})
        each = list(subjects.each(SiteData(asked, store, "study"), workers=workers))
        datasets.append([found.prepared for found in each])
        again = list(subjects.each(SiteData(asked, store, "study"), workers=1))
        datasets.append([found.prepared for found in again])
    for others in datasets[1:]:
        for one, other in zip(datasets[0], others, strict=True):
            assert one.history == other.history
            for name, image in one.images.items():
                assert_array_equal(image, other.images[name])


def test_a_worker_that_is_killed_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for memory: told with the way out, and worth another try."""
    monkeypatch.setattr(preparing, "prepare", _killed)
    with (
        pytest.raises(ServiceUnavailable, match="most likely for memory"),
        Preparer(PIPELINE, workers=2) as preparer,
    ):
        preparer("sub-1", FILES, {})


def _killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_without_a_preprocessing_section_nothing_is_kept() -> None:
    store = MemoryStore()
    site(store, {"sub-1": FILES})
    plain = task("t1ce", "ct").model_copy(update={"preprocessing": None})
    list(subjects.each(SiteData(plain, store, "study"), shape=[24, 28, 24], spacing_mm=6.0))
    assert not list(store.list("derivatives/"))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("100000 100000\n", 1), ("50000 100000", 1), ("max 100000", None), ("nonsense", None),
     (None, None)],
)  # fmt: skip
def test_a_pods_limit_is_kept(quota: str | None, expected: int | None, tmp_path: Any) -> None:
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota)
    assert cpus(path) == (expected or cpus(tmp_path / "none"))
