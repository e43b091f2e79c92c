"""``make modes``: the demo in each mode, on the same scans, into ``benchmarks/modes.json``.

Each row is one whole `fedcore demo` in a process of its own: ``seconds`` are those of the command,
the start of its S3 and Prefect included, the making of the scans not (they are made once, before).
``bytes_up`` and ``bytes_down`` are the params, updates and evaluations on the wire, over all sites.
A mode that fails is a row with its ``error``, and the rest goes on.

Noise by site: four sites are far too few for it to leave a network anything to learn. Those rows
show what such a guarantee costs, not how to choose one.

    python -m benchmarks.modes --rounds 3 --scale 0.5 --only masks
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from ruamel.yaml import YAML

from fedcore.config.disclosure import server_sees
from fedcore.errors import EXIT_GATE_FAILED
from fedcore.report.numbers import NOT_MEASURED, duration, scientific, share, size
from fedcore.terminal import console

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "plans" / "brain_tumour.yaml"
RESULTS = Path(__file__).parent / "modes.json"
REPORT = ROOT / "fedcore-work" / "modes.html"
UNIFORM = {"aggregation": {"weights": "uniform"}}
SUBJECT = ("--dp", "subject", "--epsilon", "8")
SITE = ("--dp", "site", "--epsilon", "8")

Row = dict[str, Any]
Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Mode:
    """What of the shipped plan it changes, section by section, and more of the command line."""

    name: str
    changes: Sections = field(default_factory=dict)
    options: tuple[str, ...] = ()


def _secure(**fields: Any) -> Sections:
    return {**UNIFORM, "secure_aggregation": fields}


MODES = (
    Mode("plain", UNIFORM),
    Mode("masks", _secure(mode="masks")),
    Mode("masks, north gone before it unmasks", _secure(mode="masks"), ("--drop", "north@unmask")),
    Mode("masks, sparse graph", _secure(mode="masks", neighbours=2)),
    Mode("ckks", _secure(mode="ckks")),
    Mode("ckks, a tenth; rest masked", _secure(mode="ckks", encrypt_share=0.1)),
    Mode("noise", {**UNIFORM, "privacy": {"noise_multiplier": 1.0}}),
    Mode("noise, masks", {**_secure(mode="masks"), "privacy": {"noise_multiplier": 1.0}}),
    Mode("median", {"aggregation": {"weights": "uniform", "rule": "median"}}),
    Mode("compressed", UNIFORM, ("--compress",)),
    Mode("masks, compressed", _secure(mode="masks"), ("--compress",)),
    Mode("a subject's ε of 8", UNIFORM, SUBJECT),
    Mode("masks, a subject's ε of 8, compressed", _secure(mode="masks"), (*SUBJECT, "--compress")),
    Mode("a site's ε of 8", UNIFORM, SITE),
    Mode("masks, a site's ε of 8 in shares", _secure(mode="masks"), SITE),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the modes that were asked for, write their rows, and show them."""
    asked = _parser().parse_args(arguments)
    modes = [mode for mode in MODES if not asked.only or mode.name in asked.only]
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "work"
        rows: list[Row] = []
        runs: dict[str, str] = {}
        _make_scans(workdir, asked.scale)
        for mode in modes:
            console.print(f"{mode.name} …", markup=False)
            row = run(mode, Path(folder), workdir, rounds=asked.rounds, scale=asked.scale)
            if run_id := row.pop("run_id", None):
                runs[mode.name] = run_id
            rows.append(row)
            asked.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        _write_report(workdir, rows, runs, asked)
    console.print(_table(rows))
    for row in rows:
        if "error" in row:
            console.print(f"{row['mode']}: {row['error']}", markup=False, highlight=False)
    console.print(f"rows {asked.results}\nreport {asked.report}", markup=False)


def run(mode: Mode, folder: Path, workdir: Path, *, rounds: int | None, scale: float) -> Row:
    """One demo, as a row, with its ``run_id`` if it ended."""
    fields = plan_fields(mode)
    plan = folder / "plan.yaml"
    with plan.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(fields, file)
    command = [sys.executable, "-m", "fedcore", "demo", "--json", "--workdir", str(workdir),
               "--plan", str(plan), "--scale", str(scale), *mode.options]  # fmt: skip
    if rounds is not None:
        command += ["--rounds", str(rounds)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, EXIT_GATE_FAILED):
        return {"mode": mode.name, "error": _last_words(done)}
    played = workdir / "plan.yaml"  # what the options made of the plan
    if played.exists():
        fields = YAML(typ="safe", pure=True).load(played.read_text(encoding="utf-8"))
    return row_of(mode.name, json.loads(done.stdout.splitlines()[-1]), fields, seconds)


def plan_fields(mode: Mode) -> dict[str, Any]:
    """The shipped plan with the mode's changes."""
    fields: dict[str, Any] = YAML(typ="safe", pure=True).load(PLAN.read_text(encoding="utf-8"))
    for section, changes in mode.changes.items():
        fields[section] = {**fields.get(section, {}), **changes}
    return fields


def row_of(name: str, result: Mapping[str, Any], fields: Mapping[str, Any], seconds: float) -> Row:
    """From the JSON object that a demo ends with."""
    return {
        "mode": name,
        "macro_auc": result["macro_auc"],
        "epsilon": result["privacy"]["epsilon"],
        "bytes_up": result["bytes_up"],
        "bytes_down": result["bytes_down"],
        "seconds": round(seconds, 1),
        "params_sha256": result["params_sha256"],
        "server_sees": server_sees(fields),
        "run_id": result["run_id"],
    }


def _make_scans(workdir: Path, scale: float) -> None:
    """The sites' scans, which every mode then finds."""
    from fedcore import demo
    from fedcore.demo.plan import Choices

    with demo.prepare(workdir, choices=Choices(), scale=scale, on_stage=demo.silent):
        pass


def _write_report(
    workdir: Path, rows: Sequence[Row], runs: Mapping[str, str], asked: argparse.Namespace
) -> None:
    """The report of the run behind masks, or of the last one, with the table in it."""
    from fedcore import demo
    from fedcore.config import federation as federations
    from fedcore.config import plan as plans
    from fedcore.demo.plan import Choices
    from fedcore.outcome import write_outcome
    from fedcore.server.result import finished_run

    if not runs:
        return
    name = "masks" if "masks" in runs else list(runs)[-1]
    mode = next(mode for mode in MODES if mode.name == name)
    plan = workdir.parent / "plan.yaml"
    with plan.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(plan_fields(mode), file)
    choices = Choices(plan, asked.rounds)
    with demo.prepare(workdir, choices=choices, scale=asked.scale, on_stage=demo.silent) as ready:
        who = federations.load(ready.federation)
        result = finished_run(who, plans.load(ready.plan), runs[name])
        if result is None:
            return
        extras = {"modes": rows, "pictures": demo.pictures(ready)}
        outcome = write_outcome(result, extras, ready.federation)
        asked.report.parent.mkdir(parents=True, exist_ok=True)
        asked.report.write_bytes(Path(outcome["report"]).read_bytes())


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed demo said last, in one line."""
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in said if line.startswith("fedcore: ")] or said[-1:]
    return f"exit code {done.returncode}: {' '.join(told)}"


def _table(rows: Iterable[Row]) -> Table:
    table = Table(title="The demo in each mode", title_justify="left")
    for column in ("mode", "macro AUC", "ε", "up", "down", "time", "params", "the server sees"):
        table.add_column(column)
    for row in rows:
        if "error" in row:
            table.add_row(row["mode"], *[""] * 6, "did not end")
            continue
        epsilon = "none" if row["epsilon"] is None else scientific(row["epsilon"])
        table.add_row(
            row["mode"], share(row["macro_auc"], 3), epsilon, size(row["bytes_up"]),
            size(row["bytes_down"]), duration(row["seconds"]),
            (row["params_sha256"] or NOT_MEASURED)[:8], row["server_sees"],
        )  # fmt: skip
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, help="instead of the plan's")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual subjects")
    parser.add_argument("--only", action="append", default=[], metavar="MODE",
                        choices=[mode.name for mode in MODES],
                        help="this mode alone; may be given again")  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the rows go")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the page goes")
    return parser


if __name__ == "__main__":
    main()
