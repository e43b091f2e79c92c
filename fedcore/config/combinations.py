"""Which options of a plan may be combined, as the validator has it: a table for the documentation.

Options are tried in pairs on a plan that is otherwise at rest. That says all there is: a plan is
refused just where two of its options are (``tests/config/test_combinations.py`` tries any three of
them in every mode).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, product
from typing import Any

from fedcore.config.plan import Plan
from fedcore.config.rules import illegal_combinations
from fedcore.config.section import Section

BEGIN = "<!-- made by `fedcore plan combinations`: begin -->"
END = "<!-- made by `fedcore plan combinations`: end -->"

_REST = {
    "name": "plan",
    "purpose": "research",
    "seed": 0,
    "rounds": 1,
    "task": {
        "classes": ["a", "b"],
        "model": {"function": "package.module:model"},
        "dataset": {"function": "package.module:dataset"},
    },
    "aggregation": {"weights": "uniform"},
    "cohort": {"min_clients": 5},
    "privacy": {"clip_norm": 1.0},
}
"""A plan that goes with everything."""


@dataclass(frozen=True)
class Option:
    """Fields by section, and the name they go by in the table.

    ``word``: what of the validator's sentences is this option's alone. Options about which it says
    the same but for their words share a line, with the sentence about the first.
    """

    name: str
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    word: str | None = None


def _secure(**fields: Any) -> dict[str, dict[str, Any]]:
    return {"secure_aggregation": fields}


def _coded(**fields: Any) -> dict[str, dict[str, Any]]:
    return {"compression": fields}


_FLOAT16 = {"stage": "float16"}
_QUANTISE = {"stage": "quantise", "bits": 4}
_TOP_K = {"stage": "top_k", "share": 0.1}
_LOW_RANK = {"stage": "low_rank", "rank": 2}
_SUBSAMPLE = {"stage": "subsample", "every": 4}

MODES = (
    Option("`none`"),
    Option("`masks`", _secure(mode="masks")),
    Option("`ckks`", _secure(mode="ckks")),
    Option("`ckks`, selective, rest masked", _secure(mode="ckks", encrypt_share=0.1)),
    Option("`ckks`, selective, rest plain", _secure(mode="ckks", encrypt_share=0.1, rest="plain")),
)
"""How updates travel: the columns. Selective: ``encrypt`` or ``encrypt_share`` is set."""

OPTIONS: Mapping[str, Sequence[Option]] = {
    "weights": (
        Option("`weights: uniform`"),
        Option("capped examples (`weight_cap`)",
               {"aggregation": {"weights": "examples", "weight_cap": 64}}),
        Option("`weights: examples` without a cap", {"aggregation": {"weights": "examples"}}),
    ),
    "clip": (
        Option("`clip_norm` set"),
        Option("`clip_norm` unset", {"privacy": {"clip_norm": None}}),
    ),
    "adaptive": (
        Option("fixed clipping"),
        Option("`privacy.adaptive` set", {"privacy": {"adaptive": {"noise_multiplier": 10.0}}}),
    ),
    "noise": (
        Option("no noise"),
        Option("`noise_multiplier` set", {"privacy": {"noise_multiplier": 1.0}}),
        Option("`noise_by: sites`, with a threshold",
               {"privacy": {"noise_multiplier": 1.0, "noise_by": "sites"},
                **_secure(threshold=5)}),
    ),
    "subject": (
        Option("no noise by subject"),
        Option("`privacy.subject` set", {"privacy": {"subject": {
            "clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 1}}}),
    ),
    "precision": (
        Option("float32 throughout"),
        Option("`mixed_precision: true`", {"training": {"mixed_precision": True}}),
    ),
    "optimiser": (
        Option("plain server step"),
        Option("`server_momentum` set", {"aggregation": {"server_momentum": 0.9}}),
        Option("`server_optimizer: adam`, or another that adapts",
               {"aggregation": {"server_optimizer": "adam", "server_learning_rate": 0.01}}),
    ),
    "objective": (
        Option("FedAvg"),
        Option("FedProx (`proximal_mu` set)", {"training": {"proximal_mu": 0.01}}),
    ),
    "variates": (
        Option("no control variates"),
        Option("SCAFFOLD (`training.scaffold`)",
               {"training": {"optimizer": "sgd", "scaffold": True}}),
    ),
    "imbalance": (
        Option("every subject counts the same"),
        Option("`imbalance` set", {"training": {"imbalance": "logit_adjustment"}}),
    ),
    "fairness": (
        Option("no group counts more"),
        Option("`fairness` by `reweigh`", {
            "task": {"groups": ["sex"]},
            "training": {"fairness": {"attribute": "sex", "method": "reweigh"}}}),
        Option("group DRO (`fairness` by `dro`)", {
            "task": {"groups": ["sex"]},
            "training": {"fairness": {"attribute": "sex", "method": "dro", "groups": ["F", "M"]}}}),
    ),
    "alignment": (
        Option("features as they come"),
        Option("`alignment` set", {"training": {"alignment": {}}}),
    ),
    "augment": (
        Option("images as they are"),
        Option("`augment` set", {
            "task": {"modalities": {"flair": {"kind": "mr", "path": "*.nii.gz"}}},
            "training": {"augment": {}}}),
    ),
    "fair sites": (
        Option("the sites' loss does not count"),
        Option("q-FedAvg (`fairness_q`)",
               {"training": {"optimizer": "sgd"}, "aggregation": {"fairness_q": 1.0}}),
    ),
    "normalise": (
        Option("an update as long as it is"),
        Option("FedNova (`normalise: steps`)",
               {"training": {"optimizer": "sgd"}, "aggregation": {"normalise": "steps"}}),
        Option("FedNova with `effective_steps`",
               {"training": {"optimizer": "sgd"},
                "aggregation": {"normalise": "steps", "effective_steps": 10}}),
    ),
    "local": (
        Option("every param shared"),
        Option("FedBN (`training.local` set)", {"training": {"local": ["*.norm.*"]}}),
        Option("FedRep (`training.local` and `local_epochs` set)",
               {"training": {"local": ["head.*"], "local_epochs": 1}}),
    ),
    "transfer": (
        Option("every param trained at one rate"),
        Option("`training.freeze` set", {"training": {"freeze": ["encoder.*"]}}),
        Option("`training.learning_rates` set",
               {"training": {"learning_rates": {"encoder.*": 0.1}}}),
    ),
    "pretraining": (
        Option("no pre-training"),
        Option("`training.pretraining` set",
               {"training": {"pretraining": {"modalities": ["pet"]}}}),
    ),
    "compression": (
        Option("float32"),
        Option("`up: float16`", _coded(up=[_FLOAT16]), "float16"),
        Option("`up: quantise`", _coded(up=[_QUANTISE]), "quantise"),
        Option("`up: top_k` with feedback", _coded(up=[_TOP_K], feedback=True), "top_k"),
        Option("`up: low_rank` with feedback", _coded(up=[_LOW_RANK], feedback=True), "low_rank"),
        Option("`up: subsample` with feedback", _coded(up=[_SUBSAMPLE], feedback=True)),
        Option("`down` set, and `container: zstd`",
               _coded(down=[_TOP_K, _QUANTISE], container="zstd")),
    ),
    "clients": (
        Option("`min_clients: 5`"),
        Option("`min_clients: 1`", {"cohort": {"min_clients": 1}}),
    ),
    "bits": (Option("`bits` at rest"), Option("`bits: 16`", _secure(bits=16))),
    "graph": (
        Option("everybody's neighbours"),
        Option("sparse masks (`neighbours: 4`)", _secure(neighbours=4)),
        Option("`neighbours` as many as the cohort",
               {"cohort": {"size": 8}, **_secure(neighbours=8)}),
        Option("`threshold: 5` of a cohort of 8", {"cohort": {"size": 8}, **_secure(threshold=5)}),
        Option("`threshold: 4` of a cohort of 8", {"cohort": {"size": 8}, **_secure(threshold=4)}),
    ),
    "statistics": (
        Option("statistics by site"),
        Option("`statistics: true`", _secure(statistics=True)),
    ),
    "groups": (
        Option("no groups"),
        Option("`task.groups` named", {"task": {"groups": ["sex"]}}),
    ),
    "gate": (
        Option("no gate by site"),
        Option("`gates.min_site_auc` set", {"gates": {"min_site_auc": 0.5}}),
    ),
    "rule": (
        Option("`rule: mean`"),
        Option("`rule: median`", {"aggregation": {"rule": "median"}}, "median"),
        Option("`trimmed_mean`", {"aggregation": {"rule": "trimmed_mean", "trim": 1}},
               "trimmed_mean"),
        Option("`krum`", {"aggregation": {"rule": "krum", "byzantine": 1}}, "krum"),
        Option("`multi_krum`", {"aggregation": {"rule": "multi_krum", "byzantine": 1}},
               "multi_krum"),
    ),
}  # fmt: skip
"""The other options, by what they decide; the first of each is that of the plan at rest."""


def faults(*options: Option) -> list[str]:
    """What the validator says of a plan with these options, one sentence a fault."""
    return illegal_combinations(_plan(options))


def quarrel(one: Option, other: Option) -> list[str]:
    """Why these refuse each other, in a mode that accepts either."""
    for mode in MODES:
        if not faults(mode, one) and not faults(mode, other):
            return faults(mode, one, other)
    return []


def table() -> str:
    """The table as Markdown, with the validator's sentences below it."""
    reasons: dict[str, int] = {}
    head = ["", *(mode.name for mode in MODES)]
    rows = [
        [_names(alike), *(_cell(faults(mode, alike[0]), reasons) for mode in MODES)]
        for options in OPTIONS.values()
        for alike in _alike(options[1:])
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
        *(f"{number}. {reason}." for reason, number in reasons.items()),
        "",
        "Of the other options, these refuse each other, whatever the mode:",
        "",
        *(f"- {_names(ones)} × {_names(others)} — {why}." for ones, others, why in _quarrels()),
        "",
        "Every other pair is accepted, and so is every plan of which all pairs are.",
    ])  # fmt: skip


def put_into(page: str) -> str:
    """The page with the table between its markers. Raises ValueError where they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the table: the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _plan(options: Sequence[Option]) -> Plan:
    """The plan at rest with these options, each section checked and their combination not."""
    rest = _at_rest()
    changed: dict[str, dict[str, Any]] = {}
    for option in options:
        for section, fields in option.fields.items():
            changed.setdefault(section, {}).update(fields)
    sections: dict[str, Section] = {
        name: type(section).model_validate({**section.model_dump(), **changed[name]})
        for name, section in rest
        if name in changed
    }
    return rest.model_copy(update=sections)


@cache
def _at_rest() -> Plan:
    return Plan.model_validate(_REST)


def _names(options: Iterable[Option]) -> str:
    *most, last = dict.fromkeys(option.name for option in options)
    return f"{', '.join(most)} or {last}" if most else last


def _cell(found: Sequence[str], reasons: dict[str, int]) -> str:
    """✓, or the numbers of the reasons against it."""
    numbers = [reasons.setdefault(reason, len(reasons) + 1) for reason in found]
    return f"✗ {', '.join(map(str, numbers))}" if numbers else "✓"


def _alike(options: Sequence[Option]) -> list[list[Option]]:
    """The options in groups about which the validator says the same in every mode."""
    groups: dict[tuple[tuple[str, ...], ...], list[Option]] = {}
    for option in options:
        said = tuple(tuple(_general(why, option) for why in faults(mode, option)) for mode in MODES)
        groups.setdefault(said if any(said) else ((option.name,),), []).append(option)
    return list(groups.values())


def _quarrels() -> list[tuple[list[Option], list[Option], str]]:
    """Groups of options that refuse each other, and why."""
    found: dict[tuple[str, str], tuple[list[Option], list[Option], str]] = {}
    for (_, left), (axis, right) in combinations(OPTIONS.items(), 2):
        for one, other in product(left[1:], right[1:]):
            for why in quarrel(one, other):
                group = found.setdefault((axis, _general(why, other)), ([], [], why))
                group[0].append(one)
                group[1].append(other)
    return list(found.values())


def _general(why: str, option: Option) -> str:
    return why if option.word is None else re.sub(rf"\b{option.word}\b", "…", why)
