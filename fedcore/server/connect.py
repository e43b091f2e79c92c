"""From a federation file to the things a run needs: exchange, signing key and launcher."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.config.federation import Federation, Launch, Site
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError, NotFound, PermanentError
from fedcore.launch.agent import AgentLauncher
from fedcore.launch.api import ExternalLauncher, Launcher, LauncherBySite
from fedcore.launch.process import ProcessLauncher
from fedcore.server.run import RunFile
from fedcore.store.api import Store
from fedcore.store.calls import Calls
from fedcore.store.connect import Keys, open_store, profile_keys
from fedcore.store.envelope import load_key
from fedcore.store.exchange import Exchange
from fedcore.store.identity import roll
from fedcore.store.patient import PatientStore

log = logging.getLogger("fedcore.run")


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
def connect(federation: Federation, logs: Path) -> Iterator[Connection]:
    """Open the exchange and the launchers; local clients end when the block does.

    The clients of other launchers outlive this process, so that a server that was killed finds
    them at work; they end when the run does, or are cancelled when the block ends by Ctrl-C or by
    an error that no new start would mend.

    Raises ConfigError where the signing key, a profile, a kubeconfig or a site's data is missing,
    or an identity is none.
    """
    store = PatientStore(server_store(federation))
    signing_key = load_key(federation.signing_key)
    identities = roll(
        {name: site.identities for name, site in federation.sites.items()},
        federation.revoked,
        federation.rotations,
    )
    with launchers(federation, store, signing_key, logs) as launcher:
        try:
            yield Connection(store, Exchange(store, identities), signing_key, launcher)
        except (KeyboardInterrupt, PermanentError):
            for site, reason in launcher.cancel_all().items():
                log.warning("site %s: its client was not cancelled: %s", site, reason)
            raise


@contextmanager
def launchers(
    federation: Federation, store: Store, signing_key: Ed25519PrivateKey, logs: Path
) -> Iterator[LauncherBySite]:
    """What starts each site's client, as the federation file says."""
    sites = {
        kind: {n: site for n, site in federation.sites.items() if federation.launch_of(n) == kind}
        for kind in get_args(Launch)
    }
    processes = ProcessLauncher(
        {
            name: client_environment(federation, name, site)
            for name, site in sites["process"].items()
        },
        logs,
    )
    by_site: dict[str, Launcher] = dict.fromkeys(sites["process"], processes)
    by_site |= dict.fromkeys(sites["none"], ExternalLauncher())
    agents = AgentLauncher(Calls(store), signing_key)
    by_site |= dict.fromkeys(sites["agent"], agents)
    with ExitStack() as stack:
        stack.callback(processes.close)
        if sites["kubernetes"]:
            # The kubernetes package takes a second to import: only where a site needs it.
            from fedcore.launch.kubernetes import KubernetesLauncher

            jobs = {name: site.kubernetes for name, site in sites["kubernetes"].items()}
            launcher = KubernetesLauncher({n: place for n, place in jobs.items() if place})
            stack.callback(launcher.close)
            by_site |= dict.fromkeys(jobs, launcher)
        yield LauncherBySite(by_site)
        agents.close()


def client_environment(federation: Federation, name: str, site: Site) -> dict[str, str]:
    """The environment of one site's client: where its data and policy are, and its own keys.

    Raises ConfigError if the federation file does not say where they are.
    """
    if site.data is None or site.policy is None:
        raise ConfigError(
            f"site {name}: launch: process needs its data and policy in the federation file"
        )
    environment = {"FEDCORE_POLICY": str(site.policy)}
    if site.identity is not None:
        environment["FEDCORE_IDENTITY"] = str(site.identity)
    if site.drill is not None:
        environment["FEDCORE_DRILL"] = site.drill
    for place, location in (("EXCHANGE", federation.exchange), ("DATA", site.data)):
        environment[f"FEDCORE_{place}"] = location.model_dump_json(exclude_none=True)
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
    """The newest run of exactly this plan that released nothing yet, or else the newest one.

    What is finished only tells its result again: it may have been killed before it could. Raises
    NotFound if this plan was never run.
    """
    exchange = Exchange(server_store(federation))
    opened = [exchange.record(run_id, "run", RunFile) for run_id in exchange.runs()]
    ours = [run for run in opened if run is not None and run.plan_digest == plan.digest]
    newest = [run.run_id for run in sorted(ours, key=lambda run: run.created, reverse=True)]
    for run_id in newest:
        if exchange.record(run_id, "release", int) is None:
            return run_id
    if newest:
        return newest[0]
    raise NotFound("there is no run of this plan to resume; start one without --resume")
