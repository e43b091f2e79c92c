"""What Prefect's UI shows of a run beside its tasks: a table per round, and the model's card.

Nothing here is worth a run: if Prefect is away, the run goes on without.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import httpx
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from fedcore.evaluation.headline import Headline, headline
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.registry.card import model_card
from fedcore.registry.manifest import Manifest
from fedcore.server.events import tell

AWAY = (httpx.TransportError, httpx.HTTPStatusError)
"""What Prefect's client raises, in the end, when the server does not answer or not as it should."""

_RETRIES = 3
"""Of Prefect's client, after 2, 4 and 8 s."""

_NOTHING = "–"

log = logging.getLogger("fedcore.run")


class RoundTables:
    """The rounds as tables; the next round begins while Prefect still takes up the last one's."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tables")

    def __enter__(self) -> RoundTables:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown()

    def add(self, record: RoundRecord, evaluation: EvaluationRecord) -> None:
        """Tell of the round at once, and add its table in the background."""
        _tell(record, evaluation)
        self._worker.submit(copy_context().run, _add_table, record, evaluation)


def _tell(record: RoundRecord, evaluation: EvaluationRecord) -> None:
    first = _headline(evaluation)
    tell(
        "round",
        round_num=record.round_num,
        headline=first,
        figure=first.value(evaluation.summary),
        figure_by_site={site: first.value(of) for site, of in evaluation.sites.items()},
        dropped=dict(record.dropped),
        record=record,
        evaluation=evaluation,
    )


def _add_table(record: RoundRecord, evaluation: EvaluationRecord) -> None:
    """A row per site, and what they make together."""
    first = _headline(evaluation)
    sites = sorted({*record.cohort, *evaluation.sites, *evaluation.missing})
    with _if_prefect_is_there(f"table of round {record.round_num}"):
        create_table_artifact(
            key=f"round-{record.run_id}-{record.round_num:05d}",
            description=f"{first.label[:1].upper()}{first.label[1:]} "
            f"{_interval(first.interval(evaluation.summary))} on the sites' validation subjects, "
            f"after round {record.round_num} of {record.run_id}",
            table=[_row(site, record, evaluation) for site in sites],
        )


def show_release(manifest: Manifest) -> None:
    """The card of the version that the run registered."""
    passed = manifest.verdict["passed"]
    told = "passed its gate" if passed else "did not pass its gate"
    with _if_prefect_is_there("model card"):
        create_markdown_artifact(
            key=f"model-{manifest.run_id}",
            description=f"{manifest.name} version {manifest.version} {told}",
            markdown=model_card(manifest),
        )


@contextmanager
def _if_prefect_is_there(what: str) -> Iterator[None]:
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES}):
            yield
    except AWAY as error:
        log.warning("Prefect has no %s: %s", what, error)


def _row(site: str, record: RoundRecord, evaluation: EvaluationRecord) -> dict[str, Any]:
    said, first = record.measurements.get(site, {}), _headline(evaluation)
    asked = "trained" if site in record.cohort else "not asked"
    return {
        "site": site,
        "state": record.dropped.get(site, asked),
        "trained on": record.data[site].num_subjects if site in record.data else 0,
        "loss": _number(said.get("loss")),
        "update norm": _number(said.get("update_norm")),
        "ε charged": _number(said.get("epsilon_spent")),
        "validated on": evaluation.num_examples.get(site, 0),
        first.label: _interval(first.interval(evaluation.sites.get(site, {}))),
    }


def _headline(evaluation: EvaluationRecord) -> Headline:
    return headline(evaluation.summary.get("overall") or {})


def _interval(of: Mapping[str, float | None]) -> str:
    """``0.973 (0.925 to 0.988)``."""
    value, low, high = (of.get(name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return _number(value)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"
