"""What a run starts from: somebody's checkpoint, converted once, named by its digest."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import save_file
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError
from fedcore.models import checkpoint
from fedcore.models.initial import build_model
from fedcore.params import digest
from fedcore.server.begin import initial_params
from fedcore.store import blobs
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params

TENSORS = {"net.body.weight": torch.full((4, 3), 0.5), "net.body.bias": torch.zeros(4),
           "net.out.weight": torch.zeros(7, 4), "net.steps": torch.tensor(3)}  # fmt: skip


class Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit",))


def as_safetensors(folder: Path) -> Path:
    save_file(TENSORS, folder / "c.safetensors")
    return folder / "c.safetensors"


def as_nested(folder: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": TENSORS}, folder / "c.pt")
    return folder / "c.pt"


def as_bundle(folder: Path) -> Path:
    (folder / "bundle" / "models").mkdir(parents=True)
    torch.save(TENSORS, folder / "bundle" / "models" / "model.pt")
    return folder / "bundle"


def as_zip(folder: Path) -> Path:
    as_bundle(folder)
    with zipfile.ZipFile(folder / "b.zip", "w") as bundle:
        bundle.write(folder / "bundle" / "models" / "model.pt", "spleen/models/model.pt")
    return folder / "b.zip"


@pytest.mark.parametrize("make", [as_safetensors, as_nested, as_bundle, as_zip])
def test_each_form_gives_the_same_floats(make: Any, tmp_path: Path) -> None:
    found = checkpoint.read(make(tmp_path))
    assert set(found) == {name for name in TENSORS if name != "net.steps"}
    np.testing.assert_array_equal(found["net.body.weight"], TENSORS["net.body.weight"])


def test_a_pickle_that_does_something_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"net.body.weight": Evil()}))
    with pytest.raises(ConfigError, match="is no checkpoint that can be read"):
        checkpoint.read(tmp_path / "c.pt")


def start(file: Path, arrays: dict[str, np.ndarray], **changed: Any) -> Plan:
    fields = {"file": str(file), "digest": digest(arrays), "params": ["body.*"], **changed}
    return toy.plan(training={"batch_size": 8, "start": fields})


def test_the_command_converts_and_the_run_begins_with_it(tmp_path: Path) -> None:
    source, out, plan = as_nested(tmp_path), tmp_path / "start.safetensors", tmp_path / "p.json"
    plan.write_text(toy.plan().model_dump_json())
    asked = ["params", "import", str(source), str(out), "--plan", str(plan),
             "--map", "net.=", "--map", "net.out=head", "--json"]  # fmt: skip
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    said = json.loads(result.output[result.output.index("{") :])
    assert said["params"] == ["body.bias", "body.weight"]
    assert list(said["left_out"]) == ["head.weight"]
    arrays, _ = blobs.unpack(out.read_bytes())
    what = start(out, arrays)
    assert what.training.start is not None
    assert what.training.start.digest == said["digest"]
    own, begun = get_params(build_model(what)), initial_params(what)
    assert (begun["body.weight"] == 0.5).all()
    assert np.array_equal(begun["head.weight"], own["head.weight"])


def test_sites_train_from_what_the_digest_names_and_from_nothing_else(tmp_path: Path) -> None:
    arrays = {"body.weight": np.ones((4, 3), np.float32), "body.bias": np.zeros(4, np.float32)}
    (tmp_path / "s").write_bytes(blobs.pack(arrays))
    what = start(tmp_path / "s", arrays)
    for initial, refused in ((initial_params(what), False), (get_params(build_model(what)), True)):
        store = MemoryStore()
        run = toy.open_run(
            Exchange(store), what, toy.SITES, "run-1", toy.KEY,
            created="2026-01-01T00:00:00+00:00", initial=lambda now=initial: now,
        )  # fmt: skip
        launcher = toy.InlineLauncher(store, toy.site_stores())
        if refused:
            with pytest.raises(Exception, match=r"does not begin with the params of the plan"):
                toy.train_round(run, 0, launcher)
        else:
            assert not toy.train_round(run, 0, launcher).dropped


@pytest.mark.parametrize(
    ("arrays", "changed", "words"),
    [
        ({"body.bias": (4,)}, {}, "lacks 'body.weight'"),
        ({"body.bias": (4,), "body.weight": (4, 3), "x": (1,)}, {}, "also holds 'x'"),
        ({"body.bias": (4,), "body.weight": (3, 4)}, {}, "another model"),
        ({"body.bias": (4,), "body.weight": (4, 3)}, {"digest": "0" * 64}, "and the plan another"),
    ],
)
def test_another_file_than_the_plan_means_is_named(
    arrays: dict[str, tuple[int, ...]], changed: dict[str, str], words: str, tmp_path: Path
) -> None:
    made = {name: np.ones(shape, np.float32) for name, shape in arrays.items()}
    (tmp_path / "s").write_bytes(blobs.pack(made))
    with pytest.raises(ConfigError, match=words):
        initial_params(start(tmp_path / "s", made, **changed))


def test_a_file_that_is_not_there_or_not_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps({}))
    for name in ("none", "pickle"):
        with pytest.raises(ConfigError, match="cannot be read"):
            initial_params(start(tmp_path / name, {}))
