"""A site's commands: what runs in the hospital."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from fedcore.cli.options import Json, print_json
from fedcore.terminal import show_rows


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
