"""Macro AUC against epsilon, for both units: what hiding one subject, or one site, costs.

    python -m studies.curve

Each point is the plan that ``fedcore demo --dp UNIT --epsilon E`` runs, trained on the same scans,
with several seeds of its noise. The infinite epsilon is the same plan without noise; beside it,
the shipped plan, which learns a network and not a small map. Noise comes from the plan's seed here,
so that the study can be done again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.config.plan import Plan
from fedcore.demo.plan import Choices, plan_of
from fedcore.store.api import Store
from studies import results
from studies.federation import hospitals, macro_auc, trained

EPSILONS = (1.0, 2.0, 4.0, 8.0, 32.0, 128.0, math.inf)
UNITS = ("site", "subject")
SEEDS = range(30)
PICTURE = Path(__file__).parent / "curve.png"


@dataclass(frozen=True)
class Point:
    """``macro_auc``: of each seed of the noise. ``noise_multiplier``: of one release."""

    unit: str
    epsilon: float
    noise_multiplier: float
    params: int
    rounds: int
    macro_auc: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.macro_auc)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return statistics.stdev(self.macro_auc) if len(self.macro_auc) > 1 else 0.0


def plan_at(unit: str, epsilon: float, seed: int) -> Plan:
    """The demo's plan with noise of this seed; without any for an infinite epsilon."""
    plan = plan_of(Choices(dp=unit, epsilon=epsilon if math.isfinite(epsilon) else 8.0))
    privacy = plan.privacy.model_copy(update={"noise_source": "seeded"})
    if not math.isfinite(epsilon):
        without = (
            {"noise_multiplier": 0.0}
            if privacy.subject is None
            else {"subject": privacy.subject.model_copy(update={"noise_multiplier": 1e-9})}
        )
        privacy = privacy.model_copy(update=without)
    return plan.model_copy(update={"privacy": privacy, "seed": plan.seed + seed})


def point(unit: str, epsilon: float, sites: Mapping[str, Store], seeds: Iterable[int]) -> Point:
    """Train once with each seed."""
    found, size = [], 0
    for seed in seeds:
        plan = plan_at(unit, epsilon, seed)
        params = trained(plan, sites)
        size = sum(array.size for array in params.values())
        found.append(round(macro_auc(plan, sites, params), 4))
    subject = plan.privacy.subject
    noise = plan.privacy.noise_multiplier if subject is None else subject.noise_multiplier
    return Point(unit, epsilon, noise, size, plan.rounds, found)


def main() -> dict[str, Any]:
    """Every point, and the shipped plan without noise; draws ``PICTURE``."""
    sites, points = hospitals(), []
    for unit in UNITS:
        for epsilon in EPSILONS:
            seeds = SEEDS if math.isfinite(epsilon) else range(1)
            points.append(point(unit, epsilon, sites, seeds))
            print(
                f"{unit} {epsilon:g}: {points[-1].mean:.3f} ± {points[-1].spread:.3f}", flush=True
            )
    shipped = plan_of(Choices())
    network = macro_auc(shipped, sites, trained(shipped, sites))
    print(f"the shipped plan: {network:.3f}")
    draw(points, network, PICTURE)
    return {"points": [asdict(one) for one in points], "network_without_noise": round(network, 4)}


def draw(points: Sequence[Point], network: float, path: Path) -> None:
    """AUC against epsilon with the spread over the seeds, one line a unit."""
    from fedcore.report.style import INK, SERIES, canvas

    figure, (axes,) = canvas()
    for unit, colour, marker in zip(UNITS, SERIES, "os", strict=False):
        line = [one for one in points if one.unit == unit and math.isfinite(one.epsilon)]
        epsilons, means = [one.epsilon for one in line], [one.mean for one in line]
        axes.errorbar(epsilons, means, [one.spread for one in line], color=colour, marker=marker,
                      capsize=2, label=f"one {unit}")  # fmt: skip
        for one in points:
            if one.unit == unit and not math.isfinite(one.epsilon):
                axes.axhline(one.mean, color=colour, linewidth=1, linestyle="--")
    axes.axhline(network, color=INK, linewidth=1, linestyle=":", label="network, no noise")
    axes.set_xscale("log", base=2)
    axes.set_xticks([e for e in EPSILONS if math.isfinite(e)],
                    [f"{e:g}" for e in EPSILONS if math.isfinite(e)])  # fmt: skip
    axes.set_xlabel("epsilon of the whole run; dashed: the same without noise")
    axes.set_ylabel("macro AUC")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    results.write("curve", main())
