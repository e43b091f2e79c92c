"""Plans: what is accepted, what is refused, and whether the refusal helps."""

from pathlib import Path
from typing import Any

import pytest

from fedcore.aggregation import robust as aggregation
from fedcore.config import plan as plans
from fedcore.config.task import Modality
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


def in_shares(secure: dict[str, Any] | None = None, **privacy: Any) -> dict[str, Any]:
    """Sections of a plan whose sites add the noise, behind masks unless ``secure`` says else."""
    fields = {"clip_norm": 1.0, "noise_multiplier": 1.0, "noise_by": "sites", **privacy}
    return {
        "aggregation": {"weights": "uniform"},
        "cohort": {"min_clients": 2},
        "privacy": fields,
        "secure_aggregation": secure or {"mode": "masks", "threshold": 2},
    }


def test_noise_in_shares_goes_with_masks_and_a_threshold() -> None:
    fields = plan_with(**in_shares()).division_of_updates()
    assert (fields["noise_multiplier"], fields["threshold"]) == (1.0, 2)
    by_server = plan_with(**in_shares(noise_by="server"))
    assert by_server.division_of_updates()["noise_multiplier"] == 0, "the sites add none then"


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
        ({"privacy": {"adaptive": {"noise_multiplier": 9.0}}}, "adaptive needs clip_norm"),
        ({"privacy": {"clip_norm": 1.0, "adaptive": {"noise_multiplier": 9.0, "initial": 2.0}}},
         "above clip_norm"),
        (in_shares({"mode": "masks", "threshold": 2}, adaptive={"noise_multiplier": 9.0}),
         "adaptive cannot go with secure_aggregation"),
        (in_shares(noise_multiplier=0.0), "no effect without noise_multiplier"),
        (in_shares({"mode": "none"}), "secure_aggregation.mode: masks, because a share alone"),
        (in_shares({"mode": "ckks", "threshold": 2}), "secure_aggregation.mode: masks"),
        (in_shares({"mode": "masks"}), "needs secure_aggregation.threshold"),
    ],
)  # fmt: skip
def test_illegal_combinations_say_why_and_the_way_out(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan_with(**sections)


def robust(rule: str, min_clients: int, **fields: Any) -> dict[str, Any]:
    """Sections of a plan with a robust rule."""
    return {
        "aggregation": {"rule": rule, "weights": "uniform", **fields},
        "cohort": {"min_clients": min_clients},
    }


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (robust("median", 2), "median as set needs 3 updates.*min_clients to 3"),
        (robust("trimmed_mean", 4, trim=2), "needs 5 updates"),
        (robust("trimmed_mean", 2, trim=0.1), "needs 3 updates"),
        (robust("krum", 6, byzantine=2), "needs 7 updates"),
        (robust("multi_krum", 4, byzantine=1), "needs 5 updates"),
        (robust("trimmed_mean", 9), "needs trim"),
        (robust("krum", 9), "needs byzantine"),
        (robust("median", 9, trim=1), "trim has no effect with rule: median"),
        (robust("trimmed_mean", 9, trim=1, byzantine=1), "byzantine has no effect"),
        ({"aggregation": {"trim": 0.2}}, "trim has no effect with rule: mean"),
        ({"aggregation": {"server_tau": 0.1}}, "server_tau has no effect with server_optimizer"),
        (robust("trimmed_mean", 9, trim=0.5), "trim"),
        (robust("trimmed_mean", 9, trim=0), "trim"),
        (robust("krum", 9, byzantine=0), "byzantine"),
        (robust("median", 3, weights="examples"), "would lie about its weight.*weights: uniform"),
        ({**robust("median", 3), "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0}},
         "not bounded by clip_norm, to which the noise is scaled"),
        ({**robust("median", 3), "privacy": {"clip_norm": 1.0},
          "secure_aggregation": {"mode": "masks"}},
         "a sum behind masks shows no single update, so no rule can leave one out"),
        ({**robust("krum", 5, byzantine=1), "privacy": {"clip_norm": 1.0},
          "secure_aggregation": {"mode": "ckks"}}, "no rule can leave one out"),
    ],
)  # fmt: skip
def test_robust_rules_that_cannot_be(sections: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan_with(**sections)


@pytest.mark.parametrize(
    ("sections", "rule"),
    [
        (robust("median", 3), aggregation.median()),
        (robust("trimmed_mean", 5, trim=2), aggregation.trimmed_mean(2)),
        (robust("trimmed_mean", 3, trim=0.2), aggregation.trimmed_mean(0.2)),
        (robust("krum", 7, byzantine=2), aggregation.krum(2)),
        (robust("multi_krum", 5, byzantine=1), aggregation.multi_krum(1)),
    ],
)
def test_a_plan_wants_as_many_updates_as_its_rule(
    sections: dict[str, Any], rule: aggregation.Rule
) -> None:
    """The smallest cohort that is accepted is the smallest that the rule can work with."""
    plan = plan_with(**sections)
    assert plan.aggregation.fewest == rule.fewest == plan.cohort.min_clients
    assert plans.parse(plan.canonical().decode()).digest == plan.digest


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
        ({"kind": "oct", "path": "x", "window": [0, 1]}, "OCT intensities are relative"),
        ({"kind": "mr", "path": "x", "shape": [8, 8, 8]}, "mr shares the grid"),
        ({"kind": "oct", "path": "x", "shape": [8, 8, 8]}, "needs a grid of its own"),
        ({"kind": "oct", "path": "x", "shape": [8, 8], "spacing_mm": [1, 1, 1]}, "of its own"),
        ({"kind": "fundus", "path": "x"}, r"needs shape: \[X, Y\]"),
        ({"kind": "fundus", "path": "x", "shape": [8, 8], "spacing_mm": [1, 1, 1]}, "no spacing"),
        ({"kind": "fundus", "path": "x", "shape": [8, 8], "normalise": "nyul"}, "is for MR"),
    ],
)
def test_fields_belong_to_kinds_of_image(modality: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Modality.model_validate(modality)


def test_schema_lists_every_section() -> None:
    assert set(plans.schema()["properties"]) == set(plans.Plan.model_fields)
