"""From ``package.module:function`` in a plan to the function itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from fedcore.config.section import Function
from fedcore.errors import ConfigError


def resolve(function: Function) -> Callable[..., Any]:
    """Import the function and bind its arguments. Raises ConfigError that names what is missing."""
    module_name, _, name = function.function.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{function.function}: there is no module {error.name!r} in this environment; install "
            "the package that has it"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{function.function}: {module_name} has no {name!r}") from error
    if not callable(found):
        raise ConfigError(f"{function.function}: is not a function")
    return partial(found, **function.arguments)
