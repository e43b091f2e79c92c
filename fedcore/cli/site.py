"""A site's commands: what runs in the hospital."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from fedcore.cli.options import Json, PlanFile, print_json
from fedcore.store.api import Store
from fedcore.terminal import console, progress_bar, show_rows

site_app = typer.Typer(help="A site's data: made ready for a study.", no_args_is_help=True)

DataFolder = Annotated[
    Path | None, typer.Option("--data", help="The BIDS folder, in place of FEDCORE_DATA.")
]


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
    print_json({"isolated": all(row["as expected"] for row in rows), "rows": rows}, as_json=as_json)
    raise typer.Exit(0 if all(row["as expected"] for row in rows) else 1)


@site_app.command("prepare")
def site_prepare(
    plan: PlanFile,
    data: DataFolder = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: the CPUs this one may use.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder for a picture of each subject with a doubtful alignment."),
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="Pictures of every subject.")] = False,
    as_json: Json = False,
) -> None:
    """Prepare all images of a plan ahead of its run, and list the alignments to be looked at.

    What is prepared is kept in derivatives/fedcore/prepared; a second run makes only what is new.
    Verdicts go into derivatives/fedcore/alignment.tsv: accept, as_scanned or reject. Reads
    FEDCORE_DATA and FEDCORE_DATA_KEYS, as `fedcore client` does. Nothing leaves the site.
    """
    from fedcore.config import plan as plans
    from fedcore.data.ahead import prepare_ahead
    from fedcore.data.verdicts import TABLE

    def save(subject: str, png: bytes) -> None:
        if pictures is not None:
            (pictures / f"{subject}.png").write_bytes(png)

    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    asked = plans.load(plan)
    with progress_bar() as progress:
        bar = progress.add_task("preparing", total=None)
        done = prepare_ahead(
            asked.task, site_store(data), asked.purpose,
            workers=workers,
            on_total=lambda total: progress.update(bar, total=total),
            on_subject=lambda: progress.advance(bar),
            on_picture=save if pictures is not None else None,
            every_picture=every,
        )  # fmt: skip
    rows = [
        {"subject": subject, "modality": doubt.modality, "verdict": doubt.verdict or "none yet",
         "why": "; ".join(doubt.concerns)}
        for subject, doubt in done.doubts
    ]  # fmt: skip
    if rows:
        show_rows("To be looked at", rows)
        console.print(f"{done.undecided} without a verdict: give it in {TABLE}", markup=False)
    if done.left_out:
        left_out = [{"left out because": why, "number": n} for why, n in done.left_out.items()]
        show_rows("Left out", left_out)
    console.print(f"{done.used} of {done.subjects} subjects can be used; {dict(done.images)}")
    fields = {"subjects": done.subjects, "used": done.used, "images": dict(done.images),
              "left_out": dict(done.left_out), "doubts": rows}  # fmt: skip
    print_json(fields, as_json=as_json)


@site_app.command("landmarks")
def site_landmarks(plan: PlanFile, data: DataFolder = None, as_json: Json = False) -> None:
    """Print the mean landmarks of each MR modality here, for `normalise: nyul` in a plan.

    They are percentiles of intensities, averaged over at least 10 subjects: whoever takes them out
    of the site decides that.
    """
    from fedcore.config import plan as plans
    from fedcore.data.ahead import learn_landmarks

    asked = plans.load(plan)
    learnt = learn_landmarks(asked.task, site_store(data), asked.purpose)
    for name, values in learnt.items():
        console.print(f"{name}: {{normalise: nyul, landmarks: {list(values)}}}", markup=False)
    print_json({name: list(values) for name, values in learnt.items()}, as_json=as_json)


def site_store(folder: Path | None) -> Store:
    """The site's data: in a folder, or where the environment says."""
    from fedcore.config.federation import Location
    from fedcore.settings import data_settings
    from fedcore.store.connect import keys_of, open_store

    if folder is not None:
        return open_store(Location(folder=folder))
    settings = data_settings()
    return open_store(settings.data, keys=keys_of(settings.data_keys))
