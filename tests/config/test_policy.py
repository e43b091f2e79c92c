"""The site's policy: everything that is not allowed is refused, with a reason."""

from pathlib import Path
from typing import Any

import pytest

from fedcore.config import plan as plans
from fedcore.config.policy import Policy, objection

PLAN = plans.load(Path(__file__).parents[2] / "plans" / "brain_tumour.yaml")


def policy(**allow: Any) -> Policy:
    allowed = {
        "purposes": ["brain-tumour-research"],
        "modalities": ["t1ce", "flair", "ct", "pet"],
        **allow,
    }
    return Policy.model_validate({"site": "north", "server_public_key": "k", "allow": allowed})


def test_what_is_allowed_meets_no_objection() -> None:
    assert objection(policy(), PLAN) is None
    assert objection(policy(plans=[PLAN.digest]), PLAN) is None


def test_leaving_consent_out_needs_the_sites_word() -> None:
    data = PLAN.task.dataset.model_copy(
        update={"arguments": {**PLAN.task.dataset.arguments, "consent_column": None}}
    )
    plan = PLAN.model_copy(update={"task": PLAN.task.model_copy(update={"dataset": data})})
    assert "asks for no consent" in str(objection(policy(), plan))
    assert objection(policy(consent_elsewhere=True), plan) is None


@pytest.mark.parametrize(
    ("allow", "told"),
    [
        ({"plans": ["0" * 64]}, "not among the plans"),
        ({"purposes": ["teaching"]}, "purpose 'brain-tumour-research' is not allowed"),
        ({"modalities": ["t1ce", "ct", "pet"]}, "modality 'flair' is not allowed"),
        ({"code": ["fedcore.models.*"]}, "code 'fedcore.data.bids:dataset' is not allowed"),
        ({"require_noise": 1.0}, "below the 1.0"),
    ],
)
def test_objections_say_what_is_wrong(allow: dict[str, Any], told: str) -> None:
    assert told in str(objection(policy(**allow), PLAN))


def test_a_budget_is_for_one_subject_of_all_unless_it_says_otherwise() -> None:
    fields = {**policy().model_dump(), "budget": {"epsilon": 3.0}}
    budget = Policy.model_validate(fields).budget
    assert budget is not None
    assert (budget.unit, budget.cohort, budget.charge, budget.delta) == (
        "subject", "all", "run", 1e-5
    )  # fmt: skip
    for wrong in ({"epsilon": 0.0}, {"epsilon": 1.0, "delta": 1.0}, {"epsilon": 1.0, "unit": "x"}):
        with pytest.raises(ValueError, match=r"budget"):
            Policy.model_validate({**fields, "budget": wrong})


def test_who_requires_noise_by_the_sites_gets_it() -> None:
    fields = PLAN.model_dump(mode="json")
    fields["aggregation"]["weights"] = "uniform"
    fields["secure_aggregation"] = {"mode": "masks", "threshold": 3}
    for by, told in (("server", "requires noise in shares"), ("sites", "None")):
        privacy = {"clip_norm": 1.0, "noise_multiplier": 1.0, "noise_by": by}
        plan = plans.Plan.model_validate({**fields, "privacy": privacy})
        assert told in str(objection(policy(require_noise_by_sites=True), plan))


def test_who_requires_secure_aggregation_gets_it_for_the_whole_update() -> None:
    fields = PLAN.model_dump(mode="json")
    fields["aggregation"]["weights"] = "uniform"

    def told(**secure: Any) -> str | None:
        plan = plans.Plan.model_validate({**fields, "secure_aggregation": secure})
        return objection(policy(require_secure_aggregation=True), plan)

    assert "requires secure aggregation: masks or ckks" in str(told())
    assert "rest: plain shows a part" in str(told(mode="ckks", encrypt_share=0.1, rest="plain"))
    assert "rest: plain shows a part" in str(told(mode="ckks", encrypt=["head.*"], rest="plain"))
    assert told(mode="masks") is None
    assert told(mode="ckks") is None
    assert told(mode="ckks", encrypt_share=0.1) is None
