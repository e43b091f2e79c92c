"""The ``fedcore`` command: parse, call one use case, map an error to an exit code."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.errors import EXIT_GATE_FAILED, FedcoreError
from fedcore.terminal import (
    RunProgress,
    console,
    progress_bar,
    show_isolation,
    show_result,
    show_rows,
    stages,
)

if TYPE_CHECKING:
    from fedcore.local import Stack

EXIT_CODES = """
Exit codes: 0 done · 2 wrong usage · 3 the run ended well and its gate said no · 75 try again
later (a service did not answer, too few sites replied) · 65-78 will not work until something is
changed (78 a file is wrong, 77 not allowed, 73 there already, 66 not found, 65 bad data) · 1 a bug.
"""

app = typer.Typer(
    help="Federated learning on medical images: no scan leaves its hospital." + EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
plan_app = typer.Typer(help="Plans: what a run does.", no_args_is_help=True)
models_app = typer.Typer(help="Released models.", no_args_is_help=True)
keys_app = typer.Typer(help="The server's signing key.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")

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


@app.command()
def demo(
    workdir: Workdir = DEFAULT_WORKDIR,
    plan: Annotated[Path | None, typer.Option(help="Another plan than the shipped one.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Instead of the plan's.")] = None,
    scale: Annotated[float, typer.Option(help="Times the usual number of subjects.")] = 1.0,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train each site alone, and all data together.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was interrupted.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the services up until Ctrl-C.")
    ] = False,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Train one model across four simulated hospitals, on this machine, and release it.

    Starts an S3 server and a Prefect server on free local ports, makes the hospitals' brain
    scans, runs the plan, and leaves report and model in WORKDIR. What was started is stopped at
    the end. Interrupted at any moment, the same command with --resume goes on where it stood.
    """
    from fedcore import demo as demos
    from fedcore.monitor import exposed

    with (
        exposed(metrics_port),
        progress_bar() as progress,
        demos.prepare(
            workdir, plan=plan, rounds=rounds, scale=scale, on_stage=stages(progress)
        ) as ready,
    ):
        isolation = demos.isolation(ready)
        show_isolation(isolation)
        _use(ready.stack)
        result = _train(ready.plan, ready.federation, progress, resume=resume)
        extras: dict[str, Any] = {
            "isolation": isolation,
            "pictures": demos.pictures(ready),
        }
        if baselines:
            extras["baselines"] = demos.baselines(ready, on_stage=stages(progress))
        _finish(result, extras, ready.federation, as_json=as_json)
        if keep:
            progress.stop()
            _wait(ready.stack)
    raise typer.Exit(0 if result["verdict"]["passed"] else EXIT_GATE_FAILED)


@app.command()
def up(
    workdir: Workdir = DEFAULT_WORKDIR,
    scale: Annotated[float, typer.Option(help="Times the usual number of subjects.")] = 1.0,
) -> None:
    """Start S3, Prefect and the simulated hospitals, and serve the flows, until Ctrl-C.

    A run can then be started with its parameters from Prefect's UI: Deployments, train, Run.
    """
    from fedcore import demo as demos

    with (
        progress_bar() as progress,
        demos.prepare(
            workdir, plan=None, rounds=None, scale=scale, on_stage=stages(progress)
        ) as ready,
    ):
        progress.stop()
        _use(ready.stack)
        from flows.coordinate import coordinate as serve_and_resume

        _show_urls(ready.stack)
        console.print("Start a run in the UI: Deployments, train, Run. Reports come to", end=" ")
        console.print(ready.workdir / "runs", markup=False)
        serve_and_resume(plan=ready.plan, federation=ready.federation)


@app.command()
def run(
    plan: PlanFile,
    federation: FederationFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this plan's unfinished run.")
    ] = False,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Run PLAN with the sites of a federation file, and release the model if its gate says yes.

    Uses the Prefect server that PREFECT_API_URL names, or a temporary one of Prefect's own.
    """
    from fedcore.monitor import exposed
    from fedcore.settings import use_prefect

    use_prefect(None, federation.resolve().parent / "prefect")
    with exposed(metrics_port), progress_bar() as progress:
        result = _train(plan, federation, progress, resume=resume)
    _finish(result, {}, federation, as_json=as_json)
    raise typer.Exit(0 if result["verdict"]["passed"] else EXIT_GATE_FAILED)


@app.command()
def client(
    run_id: Annotated[str, typer.Argument(help="The run to take part in.")],
    first_order: Annotated[int, typer.Option(help="Number of the first order to answer.")] = 0,
) -> None:
    """Train for one site: answer the run's orders, as the site's policy allows.

    Reads FEDCORE_POLICY, FEDCORE_EXCHANGE and FEDCORE_DATA (where they are, as JSON), and the
    site's own keys from FEDCORE_EXCHANGE_KEYS and FEDCORE_DATA_KEYS, or from boto3's chain.
    """
    from fedcore.client.connect import connect

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    connect().run(run_id, first_order)


@app.command()
def agent() -> None:
    """Start a site's clients from within, where the hospital lets nobody call in.

    Polls the exchange for what the server asks of the site, and makes the Job in its own
    namespace; outbound only. Reads what `fedcore client` reads, and FEDCORE_JOB (the file with
    the Job's settings); outside a pod also FEDCORE_NAMESPACE and FEDCORE_KUBECONFIG.
    """
    from fedcore.agent import connect
    from fedcore.settings import agent_settings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = agent_settings()
    connect(settings).run(settings.poll)


@app.command()
def probe(
    foreign_bucket: Annotated[
        list[str] | None, typer.Option(help="A bucket that must be refused. Repeatable.")
    ] = None,
    unreachable: Annotated[
        list[str] | None, typer.Option(help="host:port that must not connect. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove a site's isolation from within: what a client can reach, and what it cannot.

    `helm test` runs it in the site's namespace. Reads what `fedcore client` reads. Exit code 1 if
    anything is not as it must be.
    """
    from fedcore.probe import probe as attempts
    from fedcore.settings import client_settings

    rows = [
        {"attempt": row.attempt, "expected": row.expected, "happened": row.happened,
         "as expected": row.as_expected}
        for row in attempts(
            client_settings(),
            foreign_buckets=foreign_bucket or (),
            unreachable=unreachable or (),
        )
    ]  # fmt: skip
    show_rows("Isolation, from within", rows)
    _json({"isolated": all(row["as expected"] for row in rows), "rows": rows}, as_json=as_json)
    raise typer.Exit(0 if all(row["as expected"] for row in rows) else 1)


@app.command()
def coordinate(
    plan: PlanFile,
    federation: FederationFile = DEFAULT_FEDERATION,
) -> None:
    """Offer the flows in the Prefect server that PREFECT_API_URL names, until ended.

    Started again, it takes up the runs that it was at work on: a server's pod may be moved at any
    moment. PLAN is what a run from Prefect's UI trains unless told otherwise.
    """
    from fedcore.settings import use_prefect

    use_prefect(None, federation.resolve().parent / "prefect")
    from flows.coordinate import coordinate as serve_and_resume

    serve_and_resume(plan=plan, federation=federation)


@plan_app.command("check")
def plan_check(plan: PlanFile, as_json: Json = False) -> None:
    """Validate a plan: every fault with its line and the way out."""
    checked = plans.load(plan)
    console.print(f"{plan}: sound. {checked.rounds} rounds; digest {checked.digest}")
    _json({"name": checked.name, "digest": checked.digest}, as_json=as_json)


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
    _json({"models": rows}, as_json=as_json)


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
    manifest = registry.show("champion" if version == "champion" else int(version))
    console.print(model_card(manifest), markup=False)
    _json(asdict(manifest), as_json=as_json)


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


@app.command()
def serve(
    name: ModelName,
    federation: FederationFile = DEFAULT_FEDERATION,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Serve a model's champion over HTTP: /predict, /model, /health, /metrics.

    A newly promoted champion is picked up while the server runs.
    """
    import uvicorn
    from prometheus_client import CollectorRegistry

    from fedcore.serving.app import create_app

    registry = _registry(name, federation)

    def load() -> Any:
        release = registry.load("champion")
        return release.model, release.manifest

    metrics = CollectorRegistry()
    uvicorn.run(create_app(load, registry.champion, registry=metrics), host=host, port=port)


def _registry(name: str, federation: Path) -> Any:
    from fedcore.registry.api import Registry
    from fedcore.server.connect import server_store

    return Registry(server_store(federations.load(federation)), name)


def _use(stack: Stack) -> None:
    """From here on, Prefect in this process means the stack's server."""
    from fedcore.settings import use_prefect

    use_prefect(stack.prefect_api_url, stack.prefect_home)


def _train(plan: Path, federation: Path, progress: Progress, *, resume: bool) -> dict[str, Any]:
    """Run the flow in this process, with its rounds in the terminal."""
    from fedcore.server.connect import new_run_id, unfinished_run

    what, who = plans.load(plan), federations.load(federation)
    run_id = unfinished_run(who, what) if resume else new_run_id(what)
    from flows.train import train_here

    with RunProgress(progress).listening():
        return train_here(plan, federation, run_id)


def _finish(
    result: dict[str, Any], extras: dict[str, Any], federation: Path, *, as_json: bool
) -> None:
    """Write report and model beside the federation file, and tell where they are."""
    from fedcore.outcome import write_outcome

    outcome = write_outcome(result, extras, federation)
    show_result(result)
    console.print(f"report {outcome['report']}\nmodel  {outcome['onnx']['path']}", markup=False)
    _json(outcome, as_json=as_json)


def _json(fields: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields))


def _show_urls(stack: Stack) -> None:
    console.print(f"Prefect UI   {stack.prefect_ui_url}\nS3 endpoint  {stack.s3_endpoint}")
    console.print("Ctrl-C stops everything; the data stay.")


def _wait(stack: Stack) -> None:
    _show_urls(stack)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def main() -> None:
    """Entry point: errors become one clear message and their exit code."""
    # Being asked to end is an exit like any other: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except FedcoreError as error:
        console.print(f"fedcore: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
