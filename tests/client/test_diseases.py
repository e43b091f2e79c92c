"""The lung's and the retina's plan end to end in one process: scans, rounds, figures.

At small size: coarse grids, eight subjects a site, two rounds of one epoch.
"""

from pathlib import Path

import numpy as np
import pytest
from coarse import COARSE, changed

from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.data.phantoms import demo_federation, write_federation
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.models.initial import build_model
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params
from studies.federation import macro_auc, trained

PLANS = Path(__file__).parents[2] / "plans"


def small(name: str) -> Plan:
    fields = plans.load(PLANS / f"{name}.yaml").model_dump(mode="json", exclude_defaults=True)
    changed(fields["task"], COARSE[name])
    fields["task"]["dataset"]["arguments"]["fractions"] = [0.5, 0.0, 0.5]
    fields["training"]["epochs"] = 1
    return Plan.model_validate(fields | {"rounds": 2})


@pytest.mark.parametrize("name", ["lung", "retina"])
def test_four_hospitals_train_every_encoder_and_are_judged(name: str) -> None:
    plan, disease = small(name), DISEASES[name]
    specs = demo_federation(plan.seed, 0.01, disease=disease, voxel_mm=8.0)
    stores = {spec.name: MemoryStore() for spec in specs}
    write_federation([(spec, stores[spec.name]) for spec in specs], seed=plan.seed)
    before, after = get_params(build_model(plan)), trained(plan, stores)
    moved = {name for name, array in after.items() if not np.array_equal(array, before[name])}
    for module in (*(f"encoder.{modality}." for modality in disease.modalities), "head."):
        assert any(name.startswith(module) for name in moved), module
    assert all(np.isfinite(array).all() for array in after.values())
    assert 0.0 <= macro_auc(plan, stores, after, min_cell=1) <= 1.0
