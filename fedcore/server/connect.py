"""From a federation file to the things a run needs: exchange, signing key and launcher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.config.federation import Federation, Site
from fedcore.config.plan import Plan
from fedcore.errors import NotFound
from fedcore.evaluation.gates import Verdict
from fedcore.launch.api import ExternalLauncher, Launcher
from fedcore.launch.process import ProcessLauncher
from fedcore.server.run import RunFile
from fedcore.store.api import Store
from fedcore.store.connect import Keys, open_store, profile_keys
from fedcore.store.envelope import load_key
from fedcore.store.exchange import Exchange


@dataclass(frozen=True)
class Connection:
    """``store`` is the exchange bucket as the server sees it, ``exchange`` its typed face."""

    store: Store
    exchange: Exchange
    signing_key: Ed25519PrivateKey
    launcher: Launcher


def server_store(federation: Federation) -> Store:
    """The exchange bucket, with the server's keys."""
    return open_store(
        federation.exchange,
        keys=_keys(federation, federation.profile),
        profile=federation.profile,
    )


@contextmanager
def connect(
    federation: Federation, launch: Literal["process", "none"], logs: Path
) -> Iterator[Connection]:
    """Open the exchange and a launcher; local clients end when the block does.

    Raises ConfigError where the signing key, a profile or a site's data is missing.
    """
    store = server_store(federation)
    signing_key = load_key(federation.signing_key)
    if launch == "none":
        yield Connection(store, Exchange(store), signing_key, ExternalLauncher())
        return
    launcher = ProcessLauncher(
        {
            name: client_environment(federation, site)
            for name, site in federation.sites.items()
            if site.data is not None and site.policy is not None
        },
        logs,
    )
    try:
        yield Connection(store, Exchange(store), signing_key, launcher)
    finally:
        launcher.close()


def client_environment(federation: Federation, site: Site) -> dict[str, str]:
    """The environment of one site's client: where its data and policy are, and its own keys."""
    environment = {"FEDCORE_POLICY": str(site.policy)}
    for name, location in (("EXCHANGE", federation.exchange), ("DATA", site.data)):
        if location is not None:
            environment[f"FEDCORE_{name}"] = location.model_dump_json(exclude_none=True)
    keys = _keys(federation, site.profile)
    if keys is not None:
        text = json.dumps(keys._asdict())
        environment["FEDCORE_EXCHANGE_KEYS"] = environment["FEDCORE_DATA_KEYS"] = text
    elif site.profile is not None:
        environment["AWS_PROFILE"] = site.profile
    return environment


def _keys(federation: Federation, profile: str | None) -> Keys | None:
    if profile is None or federation.credentials_file is None:
        return None
    return profile_keys(profile, federation.credentials_file)


def new_run_id(plan: Plan) -> str:
    """The plan's name and the time to the second, in UTC."""
    return f"{plan.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def unfinished_run(federation: Federation, plan: Plan) -> str:
    """The newest run of exactly this plan that has no verdict yet. Raises NotFound."""
    exchange = Exchange(server_store(federation))
    opened = [exchange.record(run_id, "run", RunFile) for run_id in exchange.runs()]
    ours = [run for run in opened if run is not None and run.plan_digest == plan.digest]
    for run in sorted(ours, key=lambda run: run.created, reverse=True):
        if exchange.record(run.run_id, "verdict", Verdict) is None:
            return run.run_id
    raise NotFound("there is no unfinished run of this plan to resume; start one without --resume")
