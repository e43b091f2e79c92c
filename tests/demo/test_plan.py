"""The plan that the command line's choices make."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from fedcore.config.spending import run_events
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.demo.plan import Choices, plan_of
from fedcore.errors import ConfigError
from fedcore.models.initial import build_model
from fedcore.privacy.accounting import epsilon
from fedcore.training.state import get_params


@pytest.mark.parametrize("secure", [None, "masks", "ckks"])
@pytest.mark.parametrize("rounds", [None, 3])
def test_site_level_spends_what_was_asked_over_all_rounds(
    secure: str | None, rounds: int | None
) -> None:
    plan = plan_of(Choices(rounds=rounds, secure=secure, dp="site", epsilon=8.0))
    (event,) = run_events(plan)
    assert (event.unit, event.count) == ("site", plan.rounds)
    assert event.sampling_rate == 1, "nothing is claimed from sampling the cohort"
    assert 7.9 < epsilon([event], plan.privacy.target_delta) <= 8.0
    assert plan.noise_in_shares == (secure == "masks")
    assert plan.aggregation.weights == "uniform"


@pytest.mark.parametrize("secure", [None, "masks", "ckks"])
@pytest.mark.parametrize("asked", [8.0, 1.0])
def test_subject_level_spends_what_was_asked_over_all_steps(
    secure: str | None, asked: float
) -> None:
    plan = plan_of(Choices(secure=secure, dp="subject", epsilon=asked))
    (event,) = run_events(plan)
    assert event.unit == "subject"
    assert plan.privacy.subject is not None
    assert event.count == plan.rounds * plan.privacy.subject.steps
    assert 0.99 * asked < epsilon([event], plan.privacy.target_delta) <= asked
    assert plan.aggregation.weights == "uniform"
    params = get_params(build_model(plan))
    assert sum(array.size for array in params.values()) == 4 * (8 * 4 + 1)


def test_who_is_hidden_and_how_well_go_together() -> None:
    for choices in (Choices(dp="site"), Choices(epsilon=8.0)):
        with pytest.raises(ConfigError, match="--dp and --epsilon go together"):
            plan_of(choices)
    with pytest.raises(ConfigError, match="epsilon"):
        plan_of(Choices(dp="site", epsilon=-1.0))


@pytest.mark.parametrize("disease", ["brain", "lung", "retina"])
def test_each_disease_has_a_plan_for_what_its_hospitals_have(disease: str) -> None:
    plan, made = plan_of(Choices(disease=disease)), DISEASES[disease]
    assert plan.purpose == made.purpose
    assert plan.task.classes == list(made.classes)
    assert set(plan.task.modalities) == set(made.modalities)
    for name, path in made.paths.items():
        assert fnmatchcase(path.format("sub-1"), plan.task.modalities[name].path)


def test_the_small_model_for_noise_knows_heads_alone() -> None:
    with pytest.raises(ConfigError, match="--dp with --disease lung"):
        plan_of(Choices(disease="lung", dp="site", epsilon=8.0))
