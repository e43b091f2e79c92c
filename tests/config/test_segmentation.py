"""What a plan says of a segmentation, and what it may not."""

from pathlib import Path
from typing import Any

import outlined
import pytest
from pydantic import ValidationError

from fedcore.config import plan as plans
from fedcore.config.policy import objection

SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 2}
SHIPPED = Path(__file__).parents[2] / "plans" / "brain_tumour_segmentation.yaml"


def test_the_shipped_plan_is_valid_and_names_what_it_calls() -> None:
    plan = plans.load(SHIPPED)
    assert plan.task.functions() == [
        "fedcore.models.segment:segmenter",
        "fedcore.data.bids:dataset",
        "fedcore.training.losses:dice_ce",
        "fedcore.evaluation.overlap:collect",
    ]
    assert plans.parse(plan.canonical().decode()).digest == plan.digest


def test_patches_go_with_privacy_of_each_subject_one_at_a_time() -> None:
    patches = {"shape": [8, 8, 8], "foreground": 0.25}
    plan = outlined.plan(training={"patches": patches}, privacy={"subject": SUBJECT})
    assert plan.training.visits == 1
    assert outlined.plan(training={"patches": {**patches, "per_subject": 3}}).training.visits == 3


def test_loss_and_metrics_of_ones_own_stay() -> None:
    own = {"loss": {"function": "torch.nn.functional:cross_entropy"}}
    plan = outlined.plan(task=own)
    assert plan.task.loss.function == "torch.nn.functional:cross_entropy"
    assert plan.task.metrics.summarise.function == "fedcore.evaluation.overlap:summarise"


def test_a_site_may_refuse_its_code() -> None:
    policy = outlined.policies()["north"]
    assert objection(policy, outlined.plan()) is None
    narrow = policy.model_copy(
        update={"allow": policy.allow.model_copy(update={"code": ["outlined:*"]})}
    )
    assert "is not allowed to run here" in str(objection(narrow, outlined.plan()))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gates": {"min_macro_auc": 0.5}}, "min_macro_auc is of a classification"),
        ({"gates": {"min_site_auc": 0.5}}, "min_site_auc is of a classification"),
        ({"training": {"imbalance": "class_weights"}}, "imbalance goes by each subject's class"),
        ({"task": {"target": None}, "gates": {"min_dice": 0.5}}, "there is no task.target"),
        ({"task": {"target": {"structures": {"scar": {"path": "x"}}}}}, "must be the classes"),
        (
            {"task": {"target": {"drawn_on": "ct", "structures": {"lesion": {"path": "x"}}}}},
            "drawn_on 'ct' is none of the modalities",
        ),
        (
            {"training": {"patches": {"shape": [8, 8, 8]}}, "task": {"target": None}},
            "patches are for a segmentation, .* remove patches",
        ),
        (
            {
                "training": {"patches": {"shape": [8, 8, 16]}},
                "task": {"preprocessing": {"shape": [12, 12, 12]}},
            },
            r"patches of \[8, 8, 16\] voxels do not fit into the grid of \[12, 12, 12\]",
        ),
        (
            {
                "training": {"patches": {"shape": [8, 8, 16]}},
                "task": {
                    "dataset": {
                        "function": "fedcore.data.bids:dataset",
                        "arguments": {"shape": [12, 12, 12], "spacing_mm": 4.0},
                    }
                },
            },
            r"patches of \[8, 8, 16\] voxels do not fit into the grid of \[12, 12, 12\]",
        ),
        (
            {
                "training": {"patches": {"shape": [8, 8, 8], "per_subject": 2}},
                "privacy": {"subject": SUBJECT},
            },
            "with privacy.subject are one of each subject .* remove per_subject",
        ),
        ({"training": {"patches": {"shape": [8, 8]}}}, "at least 3 items"),
        (
            {"task": {"preprocessing": {"align": "rigid"}}},
            "nobody knows with which one an outline does; set drawn_on",
        ),
        (
            {"task": {"modalities": {"fundus": {"kind": "fundus", "path": "f", "shape": [8, 8]}}}},
            "fundus has its own; leave it out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        outlined.plan(**sections)
