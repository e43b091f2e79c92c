"""``fedcore site import``, ``report``, ``check`` and ``rules``: a hospital's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcore.cli.options import Json, print_json
from fedcore.cli.site import DataFolder, site_store
from fedcore.terminal import console, progress_bar, show_rows, stages

if TYPE_CHECKING:
    from fedcore.imports.outcomes import Finish
    from fedcore.imports.report import Report

_SECRET = typer.Option(
    envvar="FEDCORE_IMPORT_SECRET",
    help="The site's secret: made on first use. Keep it, and keep it to yourselves: pseudonyms, "
    "UIDs and dates follow from it.",
)


def site_import(
    source: Annotated[
        str,
        typer.Argument(help="A folder, a zip, a DICOMDIR, or the URL of a DICOMweb server."),
    ],
    data: DataFolder = None,
    secret: Annotated[Path, _SECRET] = Path("fedcore-site.secret"),
    participants: Annotated[
        Path | None,
        typer.Option(
            help="CSV of the site: patient_id, diagnosis, consent. Who is not in it has "
            "consented to nothing."
        ),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Which series is which; `fedcore site rules` prints them.")
    ] = None,
    deface: Annotated[
        bool, typer.Option("--deface", help="Remove faces from MR and CT of heads.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: the CPUs this one may use.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import scans as de-identified BIDS; what cannot be used is set aside with its reason.

    Again with the same source, it does only what is new. Writes into the folder that --data names,
    or where FEDCORE_DATA says. Beside the secret it keeps a journal of whose study is whose.
    """  # fmt: skip
    from fedcore.data.workers import cpus
    from fedcore.imports import rules as all_rules
    from fedcore.imports import secret as secrets
    from fedcore.imports import table
    from fedcore.imports.job import Journal, run
    from fedcore.imports.report import report
    from fedcore.imports.run import Importer
    from fedcore.imports.sources import open_source

    key = secrets.load(secret)
    wanted = all_rules.load(rules)
    importer = Importer(
        site_store(data),
        key,
        wanted,
        people=table.people(participants, key, wanted.columns),
        note=Journal(secret.with_suffix(".journal")).note,
        finish=_finish(deface),
        workers=workers or cpus(),
    )
    with progress_bar() as progress:
        tally = run(open_source(source), importer, stages(progress))
    found = report(importer.store)
    console.print(
        f"{tally.studies['imported']} studies imported, {tally.studies['known']} known already; "
        f"{found.used} of {found.subjects} subjects can be used"
    )
    _show(found)
    print_json(
        {"imported": tally.studies["imported"], "known": tally.studies["known"]}
        | found.as_fields(), as_json=as_json,
    )  # fmt: skip


def site_report(
    data: DataFolder = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with a picture per subject: it shows patients."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Subjects with a picture.")] = 100,
    who: Annotated[
        bool, typer.Option("--who", help="With patient ids, out of the journal beside the secret.")
    ] = False,
    secret: Annotated[Path, _SECRET] = Path("fedcore-site.secret"),
    as_json: Json = False,
) -> None:
    """Show what an import made of the scans: what is used, what is not, and why."""
    from fedcore.imports.job import Journal
    from fedcore.imports.report import report

    store = site_store(data)
    found = report(store)
    console.print(f"{found.used} of {found.subjects} subjects can be used; "
                  f"{found.consenting} of them consent to something")  # fmt: skip
    _show(found)
    if found.aside:
        known = Journal(secret.with_suffix(".journal")).read() if who else {}
        show_rows("Quarantine", [
            ({"patient": known.get(item.study, ("?", "?"))[0]} if who else {})
            | {"subject": item.subject or "none", "modality": item.modality, "reason": item.reason,
               "found": item.sentence, "remedy": item.remedy, "times": times}
            for item, times in found.counted.items()
        ])  # fmt: skip
    if html is not None:
        from fedcore.imports.page import page

        with progress_bar() as progress:
            step = stages(progress)("drawing", min(pictures, found.used))
            html.write_text(page(store, found, most=pictures, on_subject=step), "utf-8")
        console.print(f"page {html}: it shows patients, and stays here", markup=False)
    print_json(found.as_fields(), as_json=as_json)


def site_check(
    plan: Annotated[Path | None, typer.Argument(help="The plan that is to be run.")] = None,
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Say whether the site is ready: data, coverage, consent, policy, isolation, GPU, disk.

    Reads what `fedcore client` reads. Exit code 1 if anything stands in the way.
    """
    from fedcore.checkup import checkup
    from fedcore.config import plan as plans
    from fedcore.errors import ConfigError
    from fedcore.settings import client_settings

    asked = plans.load(plan) if plan is not None else None
    settings, why_not = None, ""
    try:
        settings = client_settings()
    except ConfigError as error:
        why_not = str(error).splitlines()[0]
    rows = [vars(row) for row in checkup(site_store(data), settings, why_not, asked)]
    show_rows("Ready?", rows)
    ready = all(row["state"] != "bad" for row in rows)
    print_json({"ready": ready, "rows": rows}, as_json=as_json)
    raise typer.Exit(0 if ready else 1)


def site_rules() -> None:
    """Print the shipped rules of `fedcore site import`: copy them, and change the copy."""
    from fedcore.imports.rules import shipped

    typer.echo(shipped(), nl=False)


def add_to(app: typer.Typer) -> None:
    """Put these commands beside the others of ``fedcore site``."""
    for name, command in (("import", site_import), ("report", site_report), ("check", site_check),
                          ("rules", site_rules)):  # fmt: skip
        app.command(name)(command)


def _finish(deface: bool) -> Finish:
    from fedcore.imports.deface import deface as cut
    from fedcore.imports.outcomes import unchanged

    return cut if deface else unchanged


def _show(found: Report) -> None:
    """The tables of counts."""
    if found.images:
        show_rows("Used", [{"modality": m, "images": n} for m, n in found.images.items()])
    aside = [{"what": "quarantined", "reason": r, "number": n} for r, n in found.reasons.items()]
    aside += [{"what": "not wanted", "reason": r, "number": n} for r, n in found.skipped.items()]
    if found.surplus:
        aside.append({"what": "surplus", "reason": "another of the modality is used",
                      "number": found.surplus})  # fmt: skip
    if aside:
        show_rows("Not used", aside)
