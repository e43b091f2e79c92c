"""What few bytes cost: the demo's plan, coded and not, trained from the same seeds.

    python -m studies bytes

A seed draws the initial params and the order of the examples. Each setting is compared with
float32 seed by seed, and what is told is the mean and the standard deviation of the differences.
The scans trained on are always the demo's. Its 62 test subjects are too few to tell a hundredth of
AUC, so judged is on the subjects of a second draw of the same hospitals, of which none is trained
on.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from fedcore.config.coding import Compression
from fedcore.config.plan import Plan
from fedcore.demo.plan import Choices, plan_of
from fedcore.store.api import Store
from studies.federation import EVERYBODY, SEED, Traffic, hospitals, macro_auc, trained
from studies.jobs import played

SEEDS = range(5)
FLOAT32 = "float32"
DEMO = "0.2 both ways, then 2 and 4 bits"
"""What ``fedcore demo --compress`` does."""


def _signs(up: float, down: float, rounds: int, bits_up: int, bits_down: int) -> Compression:
    """The signs of these shares; in so many last rounds, every value in a few bits."""
    return Compression.model_validate({
        "up": [{"stage": "top_k", "share": up}, {"stage": "quantise", "bits": 1}],
        "down": [{"stage": "top_k", "share": down}, {"stage": "quantise", "bits": 1}],
        "feedback": True,
        "container": "zstd",
        "last": {
            "rounds": rounds,
            "up": [{"stage": "quantise", "bits": bits_up}],
            "down": [{"stage": "quantise", "bits": bits_down}],
        },
    })  # fmt: skip


SETTINGS: Mapping[str, Compression] = {
    FLOAT32: Compression(),
    DEMO: _signs(0.2, 0.2, 1, 2, 4),
    "0.2 both ways, then 4 and 6 bits": _signs(0.2, 0.2, 1, 4, 6),
}


@dataclass(frozen=True)
class Trained:
    """One run: ``up`` and ``down`` are the bytes of all sites and rounds, ``as_float32`` those of
    params and updates alone, uncoded. ``macro_auc``: on the fresh subjects, ``of_the_demo``: on
    the demo's own test subjects."""

    setting: str
    seed: int
    macro_auc: float
    of_the_demo: float
    up: int
    down: int
    as_float32: int


@dataclass(frozen=True)
class Row:
    """``times_fewer``: float32 params and updates alone, by what travelled. ``difference``: macro
    AUC less that of float32, mean over the seeds; ``spread``: standard deviation."""

    setting: str
    seeds: Sequence[int]
    macro_auc: float
    difference: float
    spread: float
    up: int
    down: int
    times_fewer: float


def plan_at(setting: str, seed: int) -> Plan:
    """The demo's plan with this coding, and another seed."""
    plan = plan_of(Choices())
    return plan.model_copy(update={"compression": SETTINGS[setting], "seed": plan.seed + seed})


def fresh() -> Mapping[str, Store]:
    """Twice as many other subjects of the demo's hospitals."""
    return hospitals(seed=SEED + 1, scale=2.0)


def train(setting: str, seed: int) -> Trained:
    plan, sites, traffic = plan_at(setting, seed), hospitals(), Traffic()
    params = trained(plan, sites, traffic)
    return Trained(
        setting, seed,
        macro_auc=macro_auc(plan, fresh(), params, splits=EVERYBODY),
        of_the_demo=macro_auc(plan, sites, params),
        **asdict(traffic),
    )  # fmt: skip


def compared(runs: Iterable[Trained]) -> list[Row]:
    """A row a setting but float32, over the seeds that it has in common with float32."""
    by_setting: dict[str, dict[int, Trained]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, {})[run.seed] = run
    bare = by_setting.pop(FLOAT32)
    return [_row(setting, of, bare) for setting, of in by_setting.items()]


def _row(setting: str, coded: Mapping[int, Trained], bare: Mapping[int, Trained]) -> Row:
    seeds = sorted(set(coded) & set(bare))
    differences = [coded[seed].macro_auc - bare[seed].macro_auc for seed in seeds]
    sent = [coded[seed].up + coded[seed].down for seed in seeds]
    times = [coded[seed].as_float32 / size for seed, size in zip(seeds, sent, strict=True)]
    return Row(
        setting,
        seeds,
        macro_auc=round(statistics.fmean(coded[seed].macro_auc for seed in seeds), 4),
        difference=round(statistics.fmean(differences), 4),
        spread=round(statistics.stdev(differences), 4) if len(seeds) > 1 else 0.0,
        up=round(statistics.fmean(coded[seed].up for seed in seeds)),
        down=round(statistics.fmean(coded[seed].down for seed in seeds)),
        times_fewer=round(min(times), 2),
    )


def main() -> dict[str, Any]:
    """Every setting with every seed: a minute of a core each."""
    hospitals(), fresh()  # before the processes begin, which would all make them
    runs = list(played(train, [(setting, seed) for seed, setting in product(SEEDS, SETTINGS)]))
    return {"runs": [asdict(run) for run in runs], "rows": [asdict(row) for row in compared(runs)]}
