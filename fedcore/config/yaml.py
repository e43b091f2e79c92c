"""YAML files that people write, read with line numbers kept, so that an error can name the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from fedcore.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def load(path: Path, model: type[ModelT]) -> ModelT:
    """Read ``path`` as ``model``. Raises ConfigError that lists every fault with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(text, model, source=str(path))


def parse(text: str, model: type[ModelT], *, source: str) -> ModelT:
    """Validate YAML ``text`` as ``model``; ``source`` is what errors call it."""
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{source}:{line}: not YAML: {error.problem}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{source}:1: a mapping of fields is wanted here")
    try:
        return model.model_validate(YAML(typ="safe", pure=True).load(text))
    except ValidationError as error:
        faults = [
            f"{source}:{_line_of(document, item['loc'])}: {_field(item['loc'])}{_message(item)}"
            for item in error.errors()
        ]
        raise ConfigError("\n".join(faults)) from error


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) + ": " if location else ""


def _message(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such field; see `fedcore plan schema` for the fields"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{item['msg']} (it is {item['input']!r})" if item["type"] != "missing" else "is missing"


def _line_of(document: Any, location: tuple[int | str, ...]) -> int:
    """The 1-based line of the deepest part of ``location`` that the document has."""
    line: int = 0
    node: Any = document
    for part in location:
        try:
            line = node.lc.key(part)[0] if isinstance(part, str) else node.lc.item(part)[0]
            node = node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return int(line) + 1
