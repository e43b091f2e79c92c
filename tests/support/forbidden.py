"""Jobs that a server with the right to make Jobs could try; see ``forbidden_jobs.yaml``.

The admission tests run them through the rules with no cluster; tests with an API server send them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonpointer import JsonPointer
from ruamel.yaml import YAML

Job = dict[str, Any]

_SHORT = {"pod": "spec/template/spec", "client": "spec/template/spec/containers/0"}


@dataclass(frozen=True)
class Forbidden:
    """What ``rule`` denies with a message that holds ``word``, as a change of an allowed Job."""

    rule: str
    what: str
    word: str
    set: dict[str, Any] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)

    def of(self, allowed: Job) -> Job:
        """The Job to try."""
        return changed(allowed, self.set, self.drop)


def changed(job: Job, to_set: dict[str, Any], to_drop: list[str]) -> Job:
    """A copy of ``job`` with these fields set, appended to a list (``-``), or removed."""
    job = deepcopy(job)
    for path, value in to_set.items():
        parent, key = _pointer(path).to_last(job)
        if key == "-":
            parent.append(value)
        else:
            parent[key] = value
    for path in to_drop:
        parent, key = _pointer(path).to_last(job)
        del parent[key]
    return job


def forbidden_jobs() -> list[Forbidden]:
    """Every one, in the order of the file."""
    text = Path(__file__).with_name("forbidden_jobs.yaml").read_text("utf-8")
    by_rule = YAML(typ="safe").load(text)
    return [
        Forbidden(rule, what, **change)
        for rule, changes in by_rule.items()
        for what, change in changes.items()
    ]


def _pointer(path: str) -> JsonPointer:
    first, _, rest = path.partition("/")
    return JsonPointer("/" + "/".join(filter(None, (_SHORT.get(first, first), rest))))
