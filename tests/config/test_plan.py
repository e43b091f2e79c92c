"""Plans: what is accepted, what is refused, and whether the refusal helps."""

from pathlib import Path
from typing import Any

import pytest

from fedcore.config import plan as plans
from fedcore.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "plans").glob("*.yaml"))

MINIMAL: dict[str, Any] = {
    "name": "toy",
    "purpose": "research",
    "seed": 1,
    "rounds": 2,
    "task": {
        "classes": ["no", "yes"],
        "model": {"function": "package.module:model"},
        "dataset": {"function": "package.module:data"},
    },
}


def plan_with(**sections: Any) -> plans.Plan:
    return plans.Plan.model_validate({**MINIMAL, **sections})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_plans_are_valid(path: Path) -> None:
    assert plans.load(path).rounds > 0


def test_digest_names_every_field_but_not_its_spelling() -> None:
    digest = plan_with().digest
    assert plan_with(training={"epochs": 1}).digest == digest, "a default, spelt out"
    assert plan_with(training={"epochs": 2}).digest != digest
    assert plans.parse(plan_with().canonical().decode()).digest == digest


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_server_and_sites_order_the_modalities_alike(path: Path) -> None:
    """The server reads the file, a site the canonical plan; the columns of "present" follow it."""
    plan = plans.load(path)
    as_the_sites_see_it = plans.parse(plan.canonical().decode())
    assert list(plan.task.modalities) == list(as_the_sites_see_it.task.modalities)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"privacy": {"noise_multiplier": 1.0}, "aggregation": {"weights": "uniform"}},
         "set clip_norm"),
        ({"privacy": {"noise_multiplier": 1.0, "clip_norm": 1.0}}, "set weight_cap"),
        ({"aggregation": {"weights": "uniform", "weight_cap": 5}}, "remove it"),
        ({"cohort": {"size": 2, "min_clients": 3}}, "can never be reached"),
        ({"gates": {"max_group_gap": 0.1}}, "needs task.groups"),
        ({"training": {"mixed_precision": True, "device": "cpu"}}, "for GPUs"),
    ],
)  # fmt: skip
def test_illegal_combinations_say_why_and_the_way_out(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan_with(**sections)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: toy\nrounds: -1\n", r"plan.yaml:2: rounds: .*greater than or equal to 1"),
        ("name: toy\n\nroundz: 3\n", r"plan.yaml:3: roundz: there is no such field"),
        ("name: [\n", r"plan.yaml:\d: not YAML"),
        ("- a\n", "plan.yaml:1: a mapping"),
        ("name: toy\n", "task: is missing"),
        ("name: Not A Name\n", r"plan.yaml:1: name: .*'Not A Name'"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        plans.load(path)


def test_error_in_depth_names_the_deep_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("name: toy\ntraining:\n  epochs: 2\n  batch_size: none\n")
    with pytest.raises(ConfigError, match=r"plan.yaml:4: training.batch_size"):
        plans.load(path)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        plans.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("modality", "told"),
    [
        ({"kind": "mr", "path": "x", "window": [0, 1]}, "MR intensities are relative"),
        ({"kind": "ct", "path": "x"}, "needs window"),
        ({"kind": "pet", "path": "x", "window": [2, 1]}, "low < high"),
    ],
)
def test_windows_belong_to_units(modality: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plans.Modality.model_validate(modality)


def test_schema_lists_every_section() -> None:
    assert set(plans.schema()["properties"]) == set(plans.Plan.model_fields)
