"""Commands on released models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcore.cli.options import DEFAULT_FEDERATION, FederationFile, Json, print_json
from fedcore.config import federation as federations
from fedcore.errors import ConfigError
from fedcore.terminal import console, show_rows

models_app = typer.Typer(help="Released models.", no_args_is_help=True)

ModelName = Annotated[str, typer.Argument(help="The plan's name.")]


@models_app.command("list")
def models_list(
    name: ModelName, federation: FederationFile = DEFAULT_FEDERATION, as_json: Json = False
) -> None:
    """List the versions of a model."""
    registry = _registry(name, federation)
    champion = registry.champion()
    rows = [
        {
            "version": manifest.version,
            "champion": manifest.version == champion,
            "created": manifest.created,
            "run": manifest.run_id,
            "passed": manifest.verdict["passed"],
        }
        for manifest in registry.list()
    ]
    show_rows(name, rows)
    print_json({"models": rows}, as_json=as_json)


@models_app.command("show")
def models_show(
    name: ModelName,
    version: Annotated[str, typer.Argument(help="A number, or champion.")] = "champion",
    federation: FederationFile = DEFAULT_FEDERATION,
    as_json: Json = False,
) -> None:
    """Show a version's model card."""
    from dataclasses import asdict

    from fedcore.registry.card import model_card

    registry = _registry(name, federation)
    manifest = registry.show(_version(version))
    console.print(model_card(manifest), markup=False)
    print_json(asdict(manifest), as_json=as_json)


@models_app.command("promote")
def models_promote(
    name: ModelName,
    version: Annotated[int, typer.Argument(help="The version to make champion.")],
    federation: FederationFile = DEFAULT_FEDERATION,
) -> None:
    """Make a version that passed its gate the champion."""
    _registry(name, federation).promote(version)
    console.print(f"{name} version {version} is champion")


@models_app.command("rollback")
def models_rollback(name: ModelName, federation: FederationFile = DEFAULT_FEDERATION) -> None:
    """Make the champion before this one champion again."""
    version = _registry(name, federation).rollback()
    console.print(f"{name} version {version} is champion again")


def synthesize(
    name: ModelName,
    into: Annotated[Path, typer.Option(help="Folder for the BIDS data set; empty or new.")],
    count: Annotated[int, typer.Option(min=1, help="How many subjects.")] = 100,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Of this class; several take turns. [default: all]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same subjects.")] = 0,
    fill: Annotated[
        Path | None,
        typer.Option(help="A site's BIDS folder: fill in what its subjects lack instead."),
    ] = None,
    version: Annotated[str, typer.Option(help="A number, or champion.")] = "champion",
    federation: FederationFile = DEFAULT_FEDERATION,
    as_json: Json = False,
) -> None:
    """Draw synthetic subjects from a generative model, or fill in missing modalities.

    What is written is marked as synthetic in every file that describes it. A plan reads such
    subjects if its dataset has the argument synthetic: true, and then trains on them only.
    """
    from fedcore.store.filesystem import FilesystemStore
    from fedcore.synthesis import Generator

    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ConfigError(f"--into {into}: is not empty; synthetic subjects get a folder alone")
    generator = Generator(_registry(name, federation).load(_version(version)))
    into.mkdir(parents=True, exist_ok=True)
    if fill is not None:
        filled = generator.fill(FilesystemStore(fill), FilesystemStore(into))
        console.print(f"filled in, under {into}: {filled}")
        print_json({"filled": filled}, as_json=as_json)
        return
    generator.draw(FilesystemStore(into), count, classes or [], seed=seed)
    console.print(f"{count} synthetic subjects in {into}; none of them exists")
    print_json({"subjects": count, "into": str(into)}, as_json=as_json)


def serve(
    name: ModelName,
    federation: FederationFile = DEFAULT_FEDERATION,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Serve a model's champion over HTTP: /predict, /model, /health, /metrics.

    /predict takes a subject's files as the plan reads them, NIfTI or photos, by modality:
    curl -F t1ce=@a.nii.gz -F ct=@b.nii.gz.
    A newly promoted champion is picked up while the server runs.
    """
    import uvicorn
    from prometheus_client import CollectorRegistry

    from fedcore.serving.app import create_app

    registry = _registry(name, federation)

    def load() -> Any:
        release = registry.load("champion")
        return release.model, release.manifest

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s:     %(message)s")
    logging.getLogger("fedcore").setLevel(logging.INFO)
    metrics = CollectorRegistry()
    uvicorn.run(create_app(load, registry.champion, registry=metrics), host=host, port=port)


def _version(text: str) -> Any:
    """A number, or "champion". Raises ConfigError for anything else."""
    if text != "champion" and not text.isdecimal():
        raise ConfigError(f"version {text!r}: give a number, or champion")
    return text if text == "champion" else int(text)


def _registry(name: str, federation: Path) -> Any:
    from fedcore.registry.api import Registry
    from fedcore.server.connect import server_store

    return Registry(server_store(federations.load(federation)), name)
