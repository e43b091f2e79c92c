"""What people see while a run goes on, and the table at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from fedcore.config.disclosure import NOT_TOLD, hides_figures, hides_sites, server_sees
from fedcore.errors import EXIT_GATE_FAILED
from fedcore.evaluation.headline import headline

console = Console(stderr=True)
"""People read standard error; standard output is for what programs read."""


class RunProgress(logging.Handler):
    """Turns the server's events into a progress bar with the figures of the last round."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress
        self._task = progress.add_task("waiting for the first round", total=None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow the server's events, and every warning, while the block runs."""
        logging.getLogger("fedcore.run").setLevel(logging.INFO)
        log = logging.getLogger("fedcore")
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        facts = getattr(record, "event", None)
        if facts is None:
            if record.levelno >= logging.WARNING:
                console.print(record.getMessage(), markup=False, highlight=False)
            return
        match facts["event"]:
            case "run":
                self._progress.update(
                    self._task, total=facts["rounds"], description=f"run {facts['run_id']}"
                )
            case "resume":
                self._progress.update(self._task, completed=facts["round_num"])
            case "round":
                told = f"{facts['headline'].label} {_number(facts['figure'])}"
                self._progress.update(
                    self._task, completed=facts["round_num"] + 1, description=f"training, {told}"
                )
                for site, reason in facts["dropped"].items():
                    console.print(f"round {facts['round_num']}: {site} dropped out: {reason}")
            case "restart":
                console.print(f"{facts['site']}: started again, because {facts['reason']}")


def progress_bar() -> Progress:
    """The bar that every long command uses."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def stages(progress: Progress) -> Callable[[str, int], Callable[[], None]]:
    """What begins a stage with its own bar: name and steps in, a function to call a step out."""

    def begin(name: str, steps: int) -> Callable[[], None]:
        task = progress.add_task(name, total=steps)
        return lambda: progress.advance(task)

    return begin


def show_isolation(rows: Sequence[Mapping[str, Any]]) -> None:
    """What each site's credential may do, how often it was refused, and everything unexpected."""
    table = Table(title="Every credential, tried on everything", title_justify="left")
    for column in ("site", "may", "was refused", "not as intended"):
        table.add_column(column)
    for site in dict.fromkeys(row["site"] for row in rows if row["site"] != "server"):
        mine = [row for row in rows if row["site"] == site]
        may: dict[str, list[str]] = {}
        for row in mine:
            if row["allowed"]:
                may.setdefault(row["target"], []).append(row["action"])
        wrong = [f"{r['action']} {r['target']}" for r in mine if r["allowed"] != r["expected"]]
        refused = sum(not row["allowed"] for row in mine)
        table.add_row(
            site,
            "\n".join(f"{target}: {', '.join(actions)}" for target, actions in may.items()),
            f"{refused} of {len(mine)} attempts",
            ", ".join(wrong) or "nothing",
        )
    console.print(table)


def show_result(result: Mapping[str, Any]) -> None:
    """The final tables: figures, sites, verdict."""
    figures = Table(title="On held-out subjects of all sites", title_justify="left")
    for column in ("figure", "value", "95 % interval"):
        figures.add_column(column)
    overall = result["final"]["overall"]
    first = headline(overall)
    others = ("pooled_dice", "accuracy", "sensitivity", "specificity", "f1")
    for name in (first.key, *(name for name in others if name in overall)):
        interval = overall[name]
        figures.add_row(
            name.replace("_", " "),
            _number(interval["value"]),
            f"{_number(interval['low'])} to {_number(interval['high'])}",
        )
    console.print(figures)
    console.print(_site_table(result))
    verdict = result["verdict"]
    if verdict["passed"]:
        registered = result["registry"]
        console.print(
            f"[bold green]PASSED[/] the gate; {registered['name']} version "
            f"{registered['version']} is champion"
        )
    else:
        console.print("[bold red]FAILED[/] the gate; the champion stays as it was")
        for reason in verdict["reasons"]:
            console.print(f"  • {reason}", markup=False)
        console.print(f"(exit code {EXIT_GATE_FAILED})")
    console.print(result["privacy"]["statement"], markup=False)
    console.print(f"The server saw {server_sees(result['plan'])}.", markup=False, highlight=False)


def show_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Any list of like mappings as a table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_number(value) for value in row.values()))
    console.print(table)


def _site_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="Sites", title_justify="left")
    first = headline(result["final"]["overall"])
    for column in ("site", "trained on", "tested on", "modalities", first.label, "left out"):
        table.add_column(column)
    hidden, hidden_figures = hides_sites(result["plan"]), hides_figures(result["plan"])
    for name, site in result["sites"].items():
        modalities = ", ".join(f"{m} {n}" for m, n in site["modalities"].items())
        figure = first.value({"overall": site["summary"]})
        table.add_row(
            name,
            str(site["num_examples"]["train"]),
            NOT_TOLD if hidden_figures else str(site["num_examples"]["test"]),
            NOT_TOLD if hidden else modalities,
            NOT_TOLD if hidden_figures else _number(figure),
            ", ".join(f"{n} {reason}" for reason, n in site["left_out"].items()) or "none",
        )
    return table


def _number(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
