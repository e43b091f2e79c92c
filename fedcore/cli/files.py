"""Commands on the files of a study: plans and keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedcore.cli.options import Json, PlanFile, print_json
from fedcore.config import plan as plans
from fedcore.errors import ConfigError
from fedcore.terminal import console

plan_app = typer.Typer(help="Plans: what a run does.", no_args_is_help=True)
keys_app = typer.Typer(
    help="The server's signing key, and the sites' identities.", no_args_is_help=True
)


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


@plan_app.command("combinations")
def plan_combinations(
    into: Annotated[
        Path | None, typer.Option(help="Put it between the markers of this Markdown file.")
    ] = None,
) -> None:
    """Print which options of a plan may be combined, and why not where not, as Markdown."""
    from fedcore.config import combinations

    if into is None:
        typer.echo(combinations.table())
        return
    try:
        into.write_text(combinations.put_into(into.read_text("utf-8")), "utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{into}: {error}") from error


@keys_app.command("create")
def keys_create(path: Annotated[Path, typer.Argument(help="PEM file to write.")]) -> None:
    """Make a key, and print its public half.

    The server's signing key: the sites put the public half into their policies. A site's identity
    (FEDCORE_IDENTITY): it goes into the federation's identities of the site, and into its peers'
    policies.
    """
    from fedcore.store import envelope

    typer.echo(envelope.public_text(envelope.create_key(path)))


@keys_app.command("show")
def keys_show(path: Annotated[Path, typer.Argument(help="PEM file to read.")]) -> None:
    """Print the public half, as policies and federation files hold it."""
    from fedcore.store import envelope

    typer.echo(envelope.public_text(envelope.load_key(path)))


@keys_app.command("rotate")
def keys_rotate(
    old: Annotated[Path, typer.Argument(help="PEM file of the identity that goes.")],
    new: Annotated[Path, typer.Argument(help="PEM file to write: the one that comes.")],
) -> None:
    """Make a site's next identity, and print the old one's statement that it follows."""
    from fedcore.store import envelope
    from fedcore.store.identity import endorse

    before = envelope.load_key(old)
    after = envelope.create_key(new)
    typer.echo(endorse(before, after.public_key()))
    console.print(
        "1. The coordinator adds this line to rotations: in the federation file, and the site's "
        "peers in their policies: both keys count from then on.\n"
        f"2. The site sets FEDCORE_IDENTITY to {new}.\n"
        "3. All list the new key in place of the old one, drop the line, and add the old key to "
        "revoked. If the old key was stolen, that is the only step: a statement by it proves "
        "nothing.",
        markup=False,
        highlight=False,
    )
