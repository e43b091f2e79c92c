import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from fedcore.errors import BlobError, Conflict, NotFound, ReleaseError, StoreUnavailable
from fedcore.params import digest
from fedcore.registry import onnx
from fedcore.registry.api import TOLERANCE, Registry
from fedcore.store import blobs
from fedcore.store.memory import MemoryStore

Register = Callable[..., int]


class FailingStore(MemoryStore):
    """Loses its service at the first write to a key that ends in ``at``."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at: str | None = at

    def put(self, key: str, data: bytes) -> None:
        self._fail(key)
        super().put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._fail(key)
        return super().create(key, data)

    def _fail(self, key: str) -> None:
        if self.at is not None and key.endswith(self.at):
            raise StoreUnavailable(key)


class InterruptedStore(MemoryStore):
    """Runs ``meanwhile`` once, just before a write to the champion pointer."""

    meanwhile: Callable[[], object] | None = None

    def create(self, key: str, data: bytes) -> bool:
        self._interrupt(key)
        return super().create(key, data)

    def replace(self, key: str, data: bytes, version: str) -> bool:
        self._interrupt(key)
        return super().replace(key, data, version)

    def _interrupt(self, key: str) -> None:
        if self.meanwhile is not None and key.endswith("champion.json"):
            action, self.meanwhile = self.meanwhile, None
            action()


def test_versions_count_up_and_load_back(registry: Registry, register: Register) -> None:
    assert [register("run-1"), register("run-22")] == [1, 2]
    release = registry.load(2)
    assert release.model == b"onnx of run-22"
    np.testing.assert_array_equal(release.params["head.bias"], np.full(3, 6, np.float32))
    assert release.manifest == registry.show(2)
    assert release.manifest.params_digest == digest(release.params)
    assert release.manifest.onnx_digest == blobs.digest(release.model)
    assert [manifest.run_id for manifest in registry.list()] == ["run-1", "run-22"]


def test_the_layout_is_what_the_docstring_says(store: MemoryStore, register: Register) -> None:
    register()
    files = ("card.md", "manifest.json", "model.onnx", "params.safetensors")
    assert list(store.list()) == [f"models/brain/1/{file}" for file in files]
    assert b"not a medical device" in store.get("models/brain/1/card.md")


def test_the_same_run_gets_the_same_version(
    store: MemoryStore, registry: Registry, register: Register
) -> None:
    register("run-0")
    first = register(created="2026-01-02T00:00:00+00:00")
    before = {key: store.get(key) for key in store.list()}
    assert register(created="2027-01-02T00:00:00+00:00") == first == 2
    assert {key: store.get(key) for key in store.list()} == before
    with pytest.raises(Conflict, match=r"'run-1' is registered as version 2"):
        register(params={"head.bias": np.zeros(3, np.float32)})


@pytest.mark.parametrize("at", ["params.safetensors", "card.md", "manifest.json"])
def test_a_half_written_version_is_invisible(register: Register, at: str) -> None:
    store = FailingStore(at)
    registry = Registry(store, "brain")
    with pytest.raises(StoreUnavailable):
        register(into=registry)
    assert list(store.list("models/brain/1/"))
    assert registry.list() == ()
    with pytest.raises(NotFound, match="no version 1"):
        registry.show(1)
    store.at = None
    assert register("another", into=registry) == 2
    assert registry.load(2).model == b"onnx of another"


def test_a_killed_registration_goes_on_in_its_place(register: Register) -> None:
    store = FailingStore("manifest.json")
    registry = Registry(store, "brain")
    with pytest.raises(StoreUnavailable):
        register(into=registry)
    store.at = None
    assert register(into=registry, created="2026-05-05T00:00:00+00:00") == 1
    assert registry.load(1).manifest.created == "2026-05-05T00:00:00+00:00"


def test_two_registrations_at_once_never_mix(register: Register) -> None:
    class Slow(MemoryStore):
        """Registers another run in the middle of the first."""

        other: Callable[[], int] | None = None

        def create(self, key: str, data: bytes) -> bool:
            if self.other is not None and key.endswith("params.safetensors"):
                other, self.other = self.other, None
                assert other() == 2
            return super().create(key, data)

    store = Slow()
    registry = Registry(store, "brain")
    store.other = lambda: register("run-22", into=Registry(store, "brain"))
    assert register("run-1", into=registry) == 1
    assert [registry.load(n).model for n in (1, 2)] == [b"onnx of run-1", b"onnx of run-22"]


@pytest.mark.parametrize("file", ["model.onnx", "params.safetensors"])
def test_a_tampered_file_is_refused(
    store: MemoryStore, registry: Registry, register: Register, file: str
) -> None:
    register()
    key = f"models/brain/1/{file}"
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(BlobError, match=f"{key} has digest"):
        registry.load(1)
    store.delete(key)
    with pytest.raises(BlobError, match=f"{key} is gone"):
        registry.load(1)


def test_a_manifest_in_another_place_or_broken_is_refused(
    store: MemoryStore, registry: Registry, register: Register
) -> None:
    register("run-1")
    register("run-22")
    store.put("models/brain/2/manifest.json", store.get("models/brain/1/manifest.json"))
    with pytest.raises(BlobError, match="is of 'brain' version 1"):
        registry.show(2)
    store.put("models/brain/2/manifest.json", b'{"name": "brain"}')
    with pytest.raises(BlobError, match=r"2/manifest\.json cannot be read at version"):
        registry.show(2)


def test_models_do_not_see_each_other(
    store: MemoryStore, registry: Registry, register: Register
) -> None:
    register()
    other = Registry(store, "brain-2")
    assert other.list() == ()
    assert register(into=other) == 1
    other.promote(1)
    assert registry.champion() is None


def test_promote_and_roll_back(registry: Registry, register: Register) -> None:
    for run_id in ("a", "bb", "ccc"):
        registry.promote(register(run_id))
    registry.promote(3)
    assert registry.show("champion").version == registry.load("champion").manifest.version == 3
    assert [registry.rollback(), registry.rollback()] == [2, 1]
    with pytest.raises(NotFound, match="no earlier champion"):
        registry.rollback()
    registry.promote(3)
    assert [registry.champion(), registry.rollback(), registry.champion()] == [3, 1, 1]


def test_the_pointer_keeps_its_history(
    store: MemoryStore, registry: Registry, register: Register
) -> None:
    registry.promote(register("a"))
    registry.promote(register("bb"))
    registry.rollback()
    text = store.get("models/brain/champion.json").decode()
    assert text.count('"promote"') == 2
    assert text.count('"rollback"') == 1


def test_without_a_champion_there_is_none(registry: Registry, register: Register) -> None:
    register()
    assert registry.champion() is None
    with pytest.raises(NotFound, match="has no champion"):
        registry.show("champion")
    with pytest.raises(NotFound, match="has no version 7"):
        registry.promote(7)


@pytest.mark.parametrize(
    "verdict", [{"passed": False, "reasons": ["worst site is 0.6"]}, {"passed": "yes"}, {}]
)
def test_a_version_that_did_not_pass_is_not_promoted(
    registry: Registry, register: Register, verdict: dict[str, object]
) -> None:
    version = register(verdict=verdict)
    with pytest.raises(ReleaseError, match=r"worst site is 0\.6|no verdict that passed"):
        registry.promote(version)
    assert registry.champion() is None


@pytest.mark.parametrize("difference", [None, 1.1e-4, float("inf"), float("nan")])
def test_an_export_that_disagrees_is_not_promoted(
    registry: Registry, register: Register, difference: float | None
) -> None:
    version = register(onnx_max_abs_diff=difference)
    with pytest.raises(ReleaseError, match=r"ONNX export (deviates|was never compared)"):
        registry.promote(version)
    assert registry.champion() is None
    assert TOLERANCE == onnx.TOLERANCE == 1e-4


def test_a_difference_that_is_no_number_is_no_agreement(
    store: MemoryStore, registry: Registry, register: Register
) -> None:
    register(onnx_max_abs_diff=5e-5)
    key = "models/brain/1/manifest.json"
    store.put(key, store.get(key).replace(b"0.00005", b"NaN"))
    assert str(registry.show(1).onnx_max_abs_diff) == "nan"
    with pytest.raises(ReleaseError, match="deviates"):
        registry.promote(1)


@pytest.mark.parametrize("before", [None, 1])
def test_a_lost_race_names_the_winner(register: Register, before: int | None) -> None:
    store = InterruptedStore()
    ours, theirs = Registry(store, "brain"), Registry(store, "brain")
    for run_id in ("a", "bb", "ccc"):
        register(run_id, into=ours)
    if before is not None:
        ours.promote(before)
    store.meanwhile = lambda: theirs.promote(3)
    with pytest.raises(Conflict, match=r"version 2 did not become champion.*version 3 did"):
        ours.promote(2)
    assert ours.champion() == 3


def test_both_may_want_the_same(register: Register) -> None:
    store = InterruptedStore()
    ours, theirs = Registry(store, "brain"), Registry(store, "brain")
    register(into=ours)
    store.meanwhile = lambda: theirs.promote(1)
    ours.promote(1)
    assert ours.champion() == 1


def test_a_rollback_can_lose_the_race_too(register: Register) -> None:
    store = InterruptedStore()
    registry = Registry(store, "brain")
    for run_id in ("a", "bb", "ccc"):
        register(run_id, into=registry)
    registry.promote(1)
    registry.promote(2)
    store.meanwhile = lambda: Registry(store, "brain").promote(3)
    with pytest.raises(Conflict, match="version 3 did"):
        registry.rollback()
    assert registry.champion() == 3


def test_the_registry_needs_no_torch() -> None:
    code = (
        "import sys, fedcore.registry.api; "
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
