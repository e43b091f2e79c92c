"""Commands on the files of a study: plans and keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedcore.cli.options import Json, PlanFile, print_json
from fedcore.config import plan as plans
from fedcore.terminal import console

plan_app = typer.Typer(help="Plans: what a run does.", no_args_is_help=True)
keys_app = typer.Typer(help="The server's signing key.", no_args_is_help=True)


@plan_app.command("check")
def plan_check(plan: PlanFile, as_json: Json = False) -> None:
    """Validate a plan: every fault with its line and the way out."""
    checked = plans.load(plan)
    console.print(f"{plan}: sound. {checked.rounds} rounds; digest {checked.digest}")
    print_json({"name": checked.name, "digest": checked.digest}, as_json=as_json)


@plan_app.command("schema")
def plan_schema() -> None:
    """Print the JSON schema of plans, for editors."""
    typer.echo(json.dumps(plans.schema(), indent=2))


@keys_app.command("create")
def keys_create(path: Annotated[Path, typer.Argument(help="PEM file to write.")]) -> None:
    """Make the server's signing key. The sites put its public half into their policies."""
    from fedcore.store import envelope

    typer.echo(envelope.public_text(envelope.create_key(path)))


@keys_app.command("show")
def keys_show(path: Annotated[Path, typer.Argument(help="PEM file to read.")]) -> None:
    """Print the public half, as a site's policy holds it."""
    from fedcore.store import envelope

    typer.echo(envelope.public_text(envelope.load_key(path)))
