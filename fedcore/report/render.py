"""The page: figures and sentences put into the template. Everything from outside is escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined
from markupsafe import Markup

from fedcore.config import disclosure
from fedcore.evaluation.headline import headline
from fedcore.report import curves, numbers, results, secure, words
from fedcore.report.run import Record, RunReport
from fedcore.report.style import style
from fedcore.report.subjects import subjects


def render(run: RunReport) -> str:
    """The run as one HTML file that loads nothing and runs nothing. What is missing is said so."""
    with style():
        figures = _figures(run)
        pictures = subjects(run.pictures, _task(run).get("modalities") or {})
    return (
        _environment()
        .get_template("report.html")
        .render(
            run=run,
            figures=figures,
            pictures=pictures,
            task=_task(run),
            overall=run.final.get("overall") or {},
            tiles=words.tiles(run),
            headline=headline(run.final.get("overall") or {}),
            verdict_word=words.verdict_word(run.verdict),
            guarantee=words.guarantee(run.privacy),
            pretraining=words.pretraining(run),
            attendance=words.attendance(run),
            hidden=disclosure.hides_sites(run.plan),
            hides_figures=disclosure.hides_figures(run.plan),
            not_told=disclosure.NOT_TOLD,
            leaves=disclosure.what_leaves(run.plan),
            sees=disclosure.server_sees(run.plan),
            server_saw=disclosure.disclosure(run.plan),
            secure_costs=secure.costs(run),
            fewer_bytes=words.fewer_bytes(run),
            surprises=[row for row in run.isolation or () if row["allowed"] != row["expected"]],
            plan_json=json.dumps(run.plan, indent=2, ensure_ascii=False, default=str),
            elapsed=_elapsed(run),
        )
    )


def _figures(run: RunReport) -> dict[str, Markup | None]:
    """Every figure by name; None where there is nothing to draw."""
    gates = run.plan.get("gates") or {}
    overall = run.final.get("overall") or {}
    first = headline(overall)
    thresholds = {key: gates.get(f"min_{key}") for key in (first.key, "sensitivity")}
    worst_site = gates.get("min_site_dice" if first.key == "dice" else "min_site_auc")
    sites: list[results.Row] = [("all sites", overall)]
    sites += [(site, about.get("summary") or {}) for site, about in run.sites.items()]
    groups = results.group_rows(run.final)
    if disclosure.hides_figures(run.plan):
        sites, groups = [], []
    clip_norm = (run.plan.get("privacy") or {}).get("clip_norm")
    return {
        "quality": curves.quality(run.history, thresholds[first.key]),
        "loss": curves.by_site(run.history, "loss", "training loss"),
        "norms": curves.by_site(run.history, "update_norm", "norm of the update", clip_norm),
        "seconds": curves.seconds(run.history),
        "traffic": curves.traffic(run.history),
        "sites": results.forest("sites", sites, {first.key: worst_site}),
        "groups": results.forest("groups", groups, thresholds),
        "compared": results.compared(overall.get(first.key), run.baselines or {}, first.label),
        "overlap": results.overlap(overall),
        "roc": results.roc(overall),
        "confusion": results.confusion(overall, _task(run).get("classes") or ()),
        "calibration": results.calibration(overall),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: _accepting_absence(filter_) for name, filter_ in _FILTERS.items()}
    return environment


def _accepting_absence(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, given None where the template found nothing."""

    def accepting(value: Any, *arguments: Any) -> Any:
        return filter_(None if isinstance(value, Undefined) else value, *arguments)

    return accepting


def _subjects(num_examples: Any) -> str:
    """``{"train": 40, "test": 12}`` → ``40 train, 12 test``."""
    if isinstance(num_examples, Mapping):
        return ", ".join(f"{numbers.count(n)} {split}" for split, n in num_examples.items())
    return numbers.count(num_examples)


def _measured(interval: Any) -> bool:
    return not math.isnan(numbers.bounds(interval)[0])


def _heading(name: str) -> str:
    """``brain-tumour`` → ``Brain tumour``."""
    spaced = name.replace("-", " ")
    return spaced[:1].upper() + spaced[1:]


def _task(run: RunReport) -> Record:
    task: Record = run.plan.get("task") or {}
    return task


def _elapsed(run: RunReport) -> float:
    """Seconds over all phases, NaN if none was measured."""
    spent = [seconds for seconds in map(numbers.finite, run.seconds.values())
             if not math.isnan(seconds)]  # fmt: skip
    return sum(spent) if spent else math.nan


_FILTERS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (numbers.share, numbers.spread, numbers.count, numbers.size,
                               numbers.duration, numbers.scientific, numbers.moment,
                               numbers.words)},
    "value": lambda interval: numbers.bounds(interval)[0],
    "measured": _measured,
    "heading": _heading,
    "subjects": _subjects,
}  # fmt: skip
