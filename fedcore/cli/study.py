"""The coordinator's commands: run a study, here or in a cluster."""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from fedcore.cli.options import (
    DEFAULT_FEDERATION,
    DEFAULT_WORKDIR,
    FederationFile,
    Json,
    MetricsPort,
    PlanFile,
    Workdir,
    print_json,
)
from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.errors import EXIT_GATE_FAILED
from fedcore.terminal import (
    RunProgress,
    console,
    progress_bar,
    show_isolation,
    show_result,
    stages,
)

if TYPE_CHECKING:
    from fedcore.local import Stack


class SecureMode(StrEnum):
    """What ``--secure`` takes."""

    MASKS = "masks"
    CKKS = "ckks"


class DiseaseName(StrEnum):
    """What ``--disease`` takes."""

    BRAIN = "brain"
    LUNG = "lung"
    RETINA = "retina"


class DpUnit(StrEnum):
    """What ``--dp`` takes: whom the noise hides."""

    SUBJECT = "subject"
    SITE = "site"
    NONE = "none"


def demo(
    workdir: Workdir = DEFAULT_WORKDIR,
    disease: Annotated[
        DiseaseName,
        typer.Option(help="Tumours of the brain or the lung, or diseases of the retina."),
    ] = DiseaseName.BRAIN,
    plan: Annotated[Path | None, typer.Option(help="Another plan than the shipped one.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Instead of the plan's.")] = None,
    scale: Annotated[float, typer.Option(help="Times the usual number of subjects.")] = 1.0,
    secure: Annotated[
        SecureMode | None,
        typer.Option(
            help="Hide each site's update from the server, which sees their sum: how. Weights that "
            "the plan does not bound are capped."
        ),
    ] = None,
    dp: Annotated[
        DpUnit,
        typer.Option(
            help="Differential privacy: noise that hides one subject, or one site whole. With "
            "--epsilon."
        ),
    ] = DpUnit.NONE,
    epsilon: Annotated[
        float | None,
        typer.Option(help="With --dp: of the whole run, at the plan's delta. 8 is a usual choice."),
    ] = None,
    compress: Annotated[
        bool,
        typer.Option("--compress", help="Few bytes, both ways: coded updates and changes."),
    ] = False,
    drop: Annotated[
        str | None,
        typer.Option(
            metavar="SITE@STEP",
            help="A fire drill: in the second round the site's client ends itself before it says "
            "keys, shares, update, consistency or unmask; without a secure mode, update.",
        ),
    ] = None,
    from_dicom: Annotated[
        bool,
        typer.Option(
            "--from-dicom", help="Begin with the scanners' DICOM, imported as a hospital does."
        ),
    ] = False,
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

    Starts an S3 server and a Prefect server on free local ports, makes the hospitals'
    scans, runs the plan, and leaves report and model in WORKDIR. What was started is stopped at
    the end. Interrupted at any moment, the same command with --resume goes on where it stood.
    """
    from fedcore import demo as demos
    from fedcore.demo.plan import Choices
    from fedcore.monitor import exposed

    with (
        exposed(metrics_port),
        progress_bar() as progress,
        demos.prepare(
            workdir,
            choices=Choices(
                plan,
                rounds,
                secure.value if secure is not None else None,
                dp=dp.value if dp is not DpUnit.NONE else None,
                epsilon=epsilon,
                compress=compress,
                disease=disease.value,
            ),
            scale=scale,
            drop=drop,
            from_dicom=from_dicom,
            on_stage=stages(progress),
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


def up(
    workdir: Workdir = DEFAULT_WORKDIR,
    scale: Annotated[float, typer.Option(help="Times the usual number of subjects.")] = 1.0,
) -> None:
    """Start S3, Prefect and the simulated hospitals, and serve the flows, until Ctrl-C.

    A run can then be started with its parameters from Prefect's UI: Deployments, train, Run.
    """
    from fedcore import demo as demos
    from fedcore.demo.plan import Choices

    with (
        progress_bar() as progress,
        demos.prepare(workdir, choices=Choices(), scale=scale, on_stage=stages(progress)) as ready,
    ):
        progress.stop()
        _use(ready.stack)
        from flows.coordinate import coordinate as serve_and_resume

        def invite() -> None:
            _show_urls(ready.stack)
            console.print(
                "Start a run in the UI: Deployments, train, Run. Reports come to", end=" "
            )
            console.print(ready.workdir / "runs", markup=False)

        serve_and_resume(plan=ready.plan, federation=ready.federation, on_ready=invite)


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


def coordinate(
    plan: PlanFile,
    federation: FederationFile = DEFAULT_FEDERATION,
) -> None:
    """Offer the flows in the Prefect server that PREFECT_API_URL names, until ended.

    Started again, it takes up the runs that it was at work on: a server's pod may be moved at any
    moment. PLAN is what a run from Prefect's UI trains unless told otherwise.
    """
    from fedcore.settings import use_prefect

    use_prefect(None, federation.resolve().parent / "prefect", console="INFO")
    from flows.coordinate import coordinate as serve_and_resume

    serve_and_resume(plan=plan, federation=federation)


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
    print_json(outcome, as_json=as_json)


def _show_urls(stack: Stack) -> None:
    console.print(f"Prefect UI   {stack.prefect_ui_url}\nS3 endpoint  {stack.s3_endpoint}")
    console.print("Ctrl-C stops everything; the data stay.")


def _wait(stack: Stack) -> None:
    _show_urls(stack)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
