"""`fedcore synthesize`: from a released model to subjects that nobody can take for real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.data import bids
from fedcore.data.site import SiteData
from fedcore.errors import ConfigError
from fedcore.models.adversarial import ConditionalGan
from fedcore.models.initial import build_model
from fedcore.registry.api import Registry
from fedcore.store.filesystem import FilesystemStore
from fedcore.training.state import get_params
from studies.synthetic import AS_COMMENT, adversarial

SHIPPED = Path(__file__).parents[1] / "plans" / "brain_tumour_synthetic.yaml"
FEDERATION = """
exchange: {folder: exchange}
signing_key: server.pem
sites: {a: {data: {folder: site-a}, policy: a.yaml}}
"""


def plan(**dataset: Any) -> Plan:
    fields = plans.load(SHIPPED).model_dump(mode="json")
    fields["task"]["dataset"]["arguments"] |= {"shape": [8, 10, 8], **dataset}
    fields["task"]["model"]["arguments"] |= {"shape": [8, 10, 8], "latent": 3}
    return Plan.model_validate(fields)


def release(store: FilesystemStore, of: Plan) -> int:
    """A model that draws random images around 0.4, as if it had been trained and had passed."""
    rng = np.random.default_rng(0)
    params = {
        name: (0.1 * rng.normal(size=array.shape) + 0.4 * ("outward.bias" in name)).astype("f4")
        for name, array in sorted(get_params(build_model(of)).items())
    }
    registry = Registry(store, of.name)
    version = registry.register(
        model=b"onnx", params=params, run_id="run-1", created="2026-01-01T00:00:00+00:00",
        plan_digest=of.digest, plan=of.model_dump(mode="json"), onnx_max_abs_diff=1e-6,
        verdict={"passed": True, "reasons": [], "checks": []}, metrics={"all": {}, "sites": {}},
        privacy={"unit": "site", "epsilon": None, "delta": 1e-5, "statement": "No guarantee."},
        participants={}, fedcore_version="0",
    )  # fmt: skip
    registry.promote(version)
    return version


class Workplace:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "exchange").mkdir()
        (folder / "federation.yaml").write_text(FEDERATION)
        self.plan = plan()
        release(FilesystemStore(folder / "exchange"), self.plan)

    def run(self, *arguments: object) -> dict[str, Any]:
        command = ["synthesize", self.plan.name, *map(str, arguments), "--json"]
        result = CliRunner().invoke(
            app, [*command, "--federation", "federation.yaml"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        told: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
        return told

    def read(self, folder: Path, **dataset: Any) -> Any:
        of = plan(**dataset)
        site = SiteData(of.task, FilesystemStore(folder), of.purpose)
        return bids.dataset(site, **of.task.dataset.arguments)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".fedcore-lock"}


def test_a_plan_trains_on_them_and_judges_nothing_by_them(place: Workplace) -> None:
    made = place.folder / "made"
    place.run("--into", made, "--count", 6, "--class", "glioma", "--class", "none")
    splits = place.read(made, synthetic=True)
    assert {split: len(of) for split, of in splits.items()} == {
        "train": 6, "validation": 0, "test": 0,
    }  # fmt: skip
    targets = [splits["train"][i][1] for i in range(6)]
    assert targets == [1, 0] * 3
    assert splits["train"].summary.modalities == dict.fromkeys(("ct", "flair", "pet", "t1ce"), 6)


def test_a_plan_that_does_not_ask_for_them_reads_none(place: Workplace) -> None:
    made = place.folder / "made"
    place.run("--into", made, "--count", 2)
    splits = place.read(made)
    assert sum(map(len, splits.values())) == 0
    left_out = splits["train"].summary.left_out.keys() | splits["test"].summary.left_out.keys()
    assert left_out == {"synthetic, which the plan does not ask for"}


def test_every_file_says_what_it_is(place: Workplace) -> None:
    made = place.folder / "made"
    place.run("--into", made, "--count", 2)
    found = files(made)
    images = {name for name in found if name.endswith(".nii.gz")}
    assert len(images) == 8
    for name in images:
        beside = json.loads(found[name.replace(".nii.gz", ".json")])
        assert beside["Synthetic"] is True
        assert "sub-synthetic" in name
    description = json.loads(found["dataset_description.json"])
    assert description["Synthetic"] is True
    assert description["Privacy"] == "No guarantee."
    assert description["GeneratedBy"][0]["PlanDigest"] == place.plan.digest
    table = found["participants.tsv"].decode().splitlines()
    assert table[0].split("\t")[:4] == ["participant_id", "synthetic", "diagnosis", "consent"]
    assert all(row.split("\t")[1] == "true" for row in table[1:])


def test_ct_and_pet_come_back_as_the_model_drew_them(place: Workplace) -> None:
    made = place.folder / "made"
    place.run("--into", made, "--count", 1)
    images, _ = place.read(made, synthetic=True)["train"][0]
    for name, high in (("ct", 80), ("pet", 12)):
        (path,) = made.rglob(f"*_{name}.nii.gz")
        stored = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        assert stored.shape == (8, 10, 8)
        np.testing.assert_allclose(images[name][0].numpy(), stored / high, atol=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_fewer_are_the_first_of_more(
    place: Workplace,
) -> None:
    for name, arguments in {
        "one": ("--count", 3), "two": ("--count", 3), "more": ("--count", 5),
        "other": ("--count", 3, "--seed", 1),
    }.items():  # fmt: skip
        place.run("--into", place.folder / name, *arguments)
    one, two, more, other = (files(place.folder / n) for n in ("one", "two", "more", "other"))
    assert one == two
    images = [name for name in one if name.endswith(".nii.gz")]
    assert all(more[name] == one[name] for name in images)
    assert not any(other[name] == one[name] for name in images)


def test_what_a_site_lacks_is_filled_in_beside_its_images(place: Workplace) -> None:
    site, filled = place.folder / "site", place.folder / "filled"
    place.run("--into", site, "--count", 3)
    table = site / "participants.tsv"
    table.write_text(table.read_text().replace("\ttrue\t", "\tn/a\t"))
    for gone in (site / "sub-synthetic0002").rglob("*_pet.*"):
        gone.unlink()
    before = files(site)
    told = place.run("--into", filled, "--fill", site)
    assert told["filled"] == {"ct": 0, "flair": 0, "pet": 1, "t1ce": 0}
    names = sorted(files(filled))
    folder = "derivatives/fedcore/synthetic/sub-synthetic0002/pet/sub-synthetic0002_pet"
    assert names == [f"{folder}.json", f"{folder}.nii.gz"]
    assert files(site) == before
    for name, data in files(filled).items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    splits = place.read(site)
    counted = [of.summary.modalities.get("pet", 0) for of in splits.values()]
    assert sum(counted) == 2  # the one filled in is none of the site's images


def test_what_cannot_be_is_said(place: Workplace) -> None:
    (place.folder / "full").mkdir()
    (place.folder / "full" / "a").write_text("b")
    for arguments, said in (
        (("--into", "full"), "is not empty"),
        (("--into", "new", "--class", "flu"), "'flu' is none of the plan's"),
        (("--into", "new2", "--version", "first"), "give a number"),
    ):
        with pytest.raises(ConfigError, match=said):
            place.run(*arguments)


def test_the_other_model_draws_too_and_says_why_it_fills_in_nothing(place: Workplace) -> None:
    fields = place.plan.model_dump(mode="json") | {"name": "adversarial"}
    function = "fedcore.models.adversarial:conditional_gan"
    fields["task"]["model"] = {"function": function, "arguments": {"shape": [8, 10, 8]}}
    fields["task"]["metrics"] = {"memorisation": 20}
    place.plan = Plan.model_validate(fields)
    release(FilesystemStore(place.folder / "exchange"), place.plan)
    made = place.folder / "made"
    place.run("--into", made, "--count", 2)
    assert len(place.read(made, synthetic=True)["train"]) == 2
    with pytest.raises(ConfigError, match="draws subjects and does not fill in"):
        place.run("--into", place.folder / "filled", "--fill", made)


def test_a_classifier_generates_nothing(place: Workplace) -> None:
    fields = place.plan.model_dump(mode="json") | {"name": "other"}
    fields["task"]["model"] = {"function": "fedcore.models.build:classifier", "arguments": {}}
    fields["task"]["metrics"] = {}
    place.plan = Plan.model_validate(fields)
    release(FilesystemStore(place.folder / "exchange"), place.plan)
    with pytest.raises(ConfigError, match="generates nothing"):
        place.run("--into", place.folder / "new")


def test_a_path_with_two_stars_cannot_be_written(place: Workplace) -> None:
    fields = place.plan.model_dump(mode="json") | {"name": "stars"}
    fields["task"]["modalities"]["pet"]["path"] = "pet/*_*_pet.nii.gz"
    place.plan = Plan.model_validate(fields)
    release(FilesystemStore(place.folder / "exchange"), place.plan)
    with pytest.raises(ConfigError, match="one star"):
        place.run("--into", place.folder / "new")


def test_the_shipped_plan_builds_its_model() -> None:
    torch.manual_seed(0)
    sizes = [array.size for array in get_params(build_model(plans.load(SHIPPED))).values()]
    assert sum(sizes) == 4 * (1200 * 64 + 64 + 32 * 9600 + 9600 + 4 * 9600) + 4 * 64


def test_the_other_model_is_a_comment_in_the_shipped_plan() -> None:
    """Its lines, without the marks, are what the study judges."""
    _, _, comment = SHIPPED.read_text().partition("# A GAN instead")
    lines = [line[2:] for line in comment.splitlines()[2:] if line.startswith("# ")]
    read = YAML(typ="safe", pure=True)
    inside, own = (read.load("\n".join(part)) for part in (lines[:4], lines[4:]))
    assert inside | own == AS_COMMENT
    assert isinstance(build_model(adversarial(plans.load(SHIPPED))), ConditionalGan)
