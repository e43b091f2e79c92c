"""docs/modes.md: the table is the validator's, and the plans in it can be read."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fedcore.config import plan as plans
from fedcore.config.combinations import put_into

PAGE = Path(__file__).parents[2] / "docs" / "modes.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_table_is_what_the_validator_says_now():
    page = PAGE.read_text(encoding="utf-8")
    assert put_into(page) == page, "run: fedcore plan combinations --into docs/modes.md"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_accepted(example):
    """On the shipped plan, which has all that they leave out."""
    shipped = Path(__file__).parents[2] / "plans" / "brain_tumour.yaml"
    fields = plans.load(shipped).model_dump(mode="json")
    fields["aggregation"]["weights"] = "uniform"
    fields |= YAML(typ="safe", pure=True).load(example)
    assert plans.Plan.model_validate(fields).secure_aggregation.mode in ("masks", "ckks")
    assert len(EXAMPLES) == 3
