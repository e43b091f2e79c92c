"""The study of synthetic subjects: how what was found is told."""

from __future__ import annotations

import means
import pytest
import toy

from fedcore.models.adversarial import ConditionalGan
from fedcore.models.generate import ConditionalVae
from fedcore.models.initial import build_model
from fedcore.training.state import get_params
from studies import federation
from studies import synthetic as study


@pytest.mark.parametrize(("model", "of"), [("VAE", ConditionalVae), ("GAN", ConditionalGan)])
def test_each_model_is_a_legal_plan(model: str, of: type) -> None:
    plan = study.plan_of(model, 3)
    assert isinstance(build_model(plan), of)
    assert plan.seed == 3


def test_figures_that_only_a_generative_plan_has_are_summed_up_too() -> None:
    plan = means.plan(metrics={"reconstruction": True, "memorisation": 50})
    params = get_params(build_model(plan))
    overall = federation.summarised(plan, toy.site_stores(), params, min_cell=1)["overall"]
    assert {"macro_auc", "reconstruction", "memorisation"} <= set(overall)


def test_what_is_added_to_the_smallest_site_is_compared_with_its_own_seed_by_seed() -> None:
    both = f"{study.FEW}, and the VAE's"
    of_real = [{(study.ON_REAL, study.FEW, study.AUC): auc} for auc in (0.6, 0.8)]
    of_vae = [
        {(study.ON_REAL, both, study.AUC): auc, ("copies", "the VAE's", study.P_VALUE): p}
        for auc, p in ((0.7, 0.5), (0.82, 0.01))
    ]
    rows = {(r.method, r.metric): r for r in study.judged({study.REAL: of_real, "VAE": of_vae})}
    gain = rows[both, study.GAIN]
    assert (gain.mean, gain.sd, gain.met) == (0.06, pytest.approx(0.0566), True)
    assert rows[both, study.AUC].mean == 0.76
    assert (study.FEW, study.GAIN) not in rows
    assert rows["the VAE's", study.P_VALUE].met
