"""The evidence in one list: what was measured, of how many seeds, and whether it met its goal."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "studies.json"


@dataclass(frozen=True)
class Row:
    """One figure. ``sd``: over the ``seeds``. ``goal``: what ``mean`` was to reach at least."""

    study: str
    setting: str
    method: str
    metric: str
    mean: float
    sd: float
    seeds: int
    goal: float | None = None
    met: bool | None = None


def row(
    study: str, setting: str, method: str, metric: str, values: Sequence[float],
    *, goal: float | None = None,
) -> Row:  # fmt: skip
    """Mean and standard deviation of one value a seed; ``met`` compares what is written.

    >>> row("fusion", "all", "sum", "macro_auc", [0.9, 0.92], goal=0.91).met
    True
    """
    mean = round(statistics.fmean(values), 4)
    sd = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
    goal = None if goal is None else round(goal, 4)
    met = None if goal is None else mean >= goal
    return Row(study, setting, method, metric, mean, sd, len(values), goal, met)


def gained(
    study: str, setting: str, metric: str, found: Mapping[str, Sequence[float]],
    *, base: str, goal: float | None = None,
) -> list[Row]:  # fmt: skip
    """A row a method of one value a seed, and of what it gained over ``base`` with the same seed.

    >>> [r.mean for r in gained("s", "all", "auc", {"a": [0.7], "b": [0.8]}, base="a")]
    [0.7, 0.8, 0.1]
    """
    rows = []
    for method, values in found.items():
        rows.append(row(study, setting, method, metric, values))
        if method != base:
            gains = [one - other for one, other in zip(values, found[base], strict=True)]
            rows.append(row(study, setting, method, f"{metric} gained", gains, goal=goal))
    return rows


def goals(
    of: Row, values: Sequence[float], *, centralised: Sequence[float], alone: float, share: float
) -> list[Row]:
    """Whether the federated method of the row ``of`` met its goals, by its ``values`` by seed.

    Its share of what all data in one place come to, seed by seed, is to be ``share``, and it is to
    be above ``alone``, the mean of the best single site.

    >>> federated = row("fusion", "all", "sum", "macro_auc", [0.9])
    >>> [r.met for r in goals(federated, [0.9], centralised=[1.0], alone=0.8, share=0.95)]
    [False, True]
    """
    # Where all data came to nothing there is nothing to have a share of: that is no goal met.
    pairs = zip(values, centralised, strict=True)
    shares = [value / all_ if all_ > 0 else 0.0 for value, all_ in pairs]
    gains = [value - alone for value in values]
    where = (of.study, of.setting, of.method)
    return [
        row(*where, f"share of centralised {of.metric}", shares, goal=share),
        row(*where, f"{of.metric} above the best single site", gains, goal=0.0),
    ]


def write(study: str, rows: Iterable[Row], path: Path = RESULTS) -> None:
    """Put a study's rows in the place of its earlier ones."""
    kept = [r for r in read(path) if r.study != study]
    whole = sorted([*kept, *rows], key=lambda r: r.study)
    text = json.dumps([asdict(r) for r in whole], indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path = RESULTS) -> list[Row]:
    """All rows; none if nothing was studied yet."""
    if not path.exists():
        return []
    return [Row(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
