"""docs/threat-model.md: every test, file and command that it names is there."""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcore.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))
FILES = sorted(set(re.findall(r"`((?:docs|fedcore)/[\w/.-]+\.(?:md|py))`", PAGE)))
COMMANDS = sorted(set(re.findall(r"`fedcore ((?:keys|ledger|plan) \w+)", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_is_named_exists(named):
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not name or name in defined
    assert any(one.lower().startswith("test") for one in defined)


def test_every_attack_is_named():
    attacks = {f"tests/attacks/{path.name}" for path in (ROOT / "tests/attacks").glob("test_*.py")}
    assert attacks <= {named.partition("::")[0] for named in NAMED}


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_named_exists(file):
    assert (ROOT / file).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_named_exists(command):
    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


def test_enough_is_named_for_this_to_mean_something():
    assert len(NAMED) > 20
    assert len(COMMANDS) >= 5


def test_the_bound_on_colluders_is_that_of_the_default_threshold():
    """c < 2t − n: one of four sites, three of ten."""
    from fedcore.privacy.secagg import default_threshold

    assert [2 * default_threshold(n) - n - 1 for n in (4, 10)] == [1, 3]
    assert "three colluding sites change nothing" in PAGE
