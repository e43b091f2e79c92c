"""The ``fedcore`` command: parse, call one use case, map an error to an exit code."""

from __future__ import annotations

import signal
import sys

import typer

from fedcore.cli import files, imports, ledger, models, params, site, study
from fedcore.errors import FedcoreError
from fedcore.terminal import console

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
for command in (study.demo, study.up, study.run, study.coordinate, site.client, site.agent,
                site.probe, models.serve, models.synthesize):  # fmt: skip
    app.command()(command)
app.add_typer(files.plan_app, name="plan")
app.add_typer(files.keys_app, name="keys")
imports.add_to(site.site_app)
app.add_typer(site.site_app, name="site")
app.add_typer(ledger.ledger_app, name="ledger")
app.add_typer(models.models_app, name="models")
app.add_typer(params.params_app, name="params")


def main() -> None:
    """Entry point: errors become one clear message and their exit code."""
    # Being asked to end is an exit like any other: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except FedcoreError as error:
        console.print(f"fedcore: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
