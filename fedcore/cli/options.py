"""What the commands have in common: their options, and how they print JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan file.")]
FederationFile = Annotated[
    Path, typer.Option("--federation", help="The federation file: where the sites are.")
]
Workdir = Annotated[
    Path, typer.Option(help="Folder for the stack's data, logs, reports and models.")
]
MetricsPort = Annotated[
    int | None, typer.Option(help="Serve Prometheus metrics of the run on this local port.")
]
DEFAULT_WORKDIR = Path("fedcore-work")
DEFAULT_FEDERATION = DEFAULT_WORKDIR / "federation.yaml"


def print_json(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """The one JSON object that ends a command, if it was asked for."""
    if as_json:
        typer.echo(json.dumps(fields))
