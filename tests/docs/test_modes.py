"""docs/modes.md: the table is the validator's, and the plans in it can be read."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.config import plan as plans
from fedcore.config.combinations import BEGIN, END, put_into, table
from fedcore.errors import ConfigError

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
    if "statistics: true" in example:  # these cannot go together, as the table says
        fields["task"]["groups"] = []
        fields["gates"] |= {"min_site_auc": None, "max_group_gap": None}
    fields |= YAML(typ="safe", pure=True).load(example)
    assert plans.Plan.model_validate(fields).secure_aggregation.mode in ("masks", "ckks")
    assert len(EXAMPLES) == 4


def test_the_command_prints_the_table_or_puts_it_into_a_page(tmp_path):
    command = ["plan", "combinations"]
    assert CliRunner().invoke(app, command).output.strip() == table()
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    other.write_text("no markers", encoding="utf-8")
    assert CliRunner().invoke(app, [*command, "--into", str(page)]).exit_code == 0
    assert table() in page.read_text(encoding="utf-8")
    for wrong in (other, tmp_path / "missing.md"):
        failed = CliRunner().invoke(app, [*command, "--into", str(wrong)])
        assert isinstance(failed.exception, ConfigError)
        assert wrong.name in str(failed.exception)
    assert other.read_text(encoding="utf-8") == "no markers"
