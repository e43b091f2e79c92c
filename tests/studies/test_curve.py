"""What the curve's points are, without training them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedcore.config.spending import run_events
from fedcore.demo.plan import Choices, plan_of
from fedcore.privacy.accounting import epsilon
from studies import curve, results
from studies.federation import trained


@pytest.mark.parametrize("unit", curve.UNITS)
def test_a_point_is_the_demos_plan_with_the_noise_of_its_epsilon(unit: str) -> None:
    asked = plan_of(Choices(dp=unit, epsilon=4.0))
    plans = [curve.plan_at(unit, 4.0, seed) for seed in range(2)]
    assert plans[0].seed != plans[1].seed
    for plan in plans:
        assert run_events(plan) == (), "seeded noise hides nothing, and says so"
        by_os = plan.privacy.model_copy(update={"noise_source": "os"})
        assert by_os == asked.privacy
        (event,) = run_events(plan.model_copy(update={"privacy": by_os}))
        assert 3.9 < epsilon([event], by_os.target_delta) <= 4.0


@pytest.mark.parametrize("unit", curve.UNITS)
def test_without_noise_nothing_else_changes(unit: str) -> None:
    bare, noisy = curve.plan_at(unit, math.inf, 0), curve.plan_at(unit, 8.0, 0)
    assert bare.training == noisy.training
    assert (bare.rounds, bare.privacy.clip_norm) == (noisy.rounds, noisy.privacy.clip_norm)


def test_a_plan_that_hides_updates_is_refused_for_its_noise_would_be_left_out() -> None:
    with pytest.raises(ValueError, match="nothing is masked"):
        trained(plan_of(Choices(dp="site", epsilon=8.0, secure="masks")), {})


def test_results_of_other_studies_stay(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write("curve", {"a": 1}, path)
    results.write("audit", {"b": math.inf}, path)
    results.write("curve", {"a": 2}, path)
    assert json.loads(path.read_text()) == {"audit": {"b": math.inf}, "curve": {"a": 2}}
