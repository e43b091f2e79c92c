"""From names in a plan to functions."""

import pytest

from fedcore.config.functions import resolve
from fedcore.config.section import Function
from fedcore.errors import ConfigError


def test_arguments_are_bound() -> None:
    assert resolve(Function(function="builtins:int", arguments={"base": 2}))("101") == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_package.module:function", "no module 'no_such_package'"),
        ("json:no_such_function", "json has no 'no_such_function'"),
        ("json:__name__", "is not a function"),
    ],
)
def test_what_is_missing_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        resolve(Function(function=name))
