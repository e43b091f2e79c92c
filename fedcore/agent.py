"""The agent of a site that lets nobody call in: it asks the exchange, and makes the Jobs itself.

What it makes is what the server would make: the same order, the same manifest, the same code. It
speaks outbound only, to the exchange bucket and to its own API server.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedcore.config import job as jobs
from fedcore.config import policy as policies
from fedcore.config.job import KubernetesSite
from fedcore.errors import OrderRefused, PermanentError, TemporaryError
from fedcore.launch.api import RUNNING, Launcher
from fedcore.records import ClientStatus, FinishOrder
from fedcore.settings import AgentSettings
from fedcore.store import envelope
from fedcore.store.calls import Calls
from fedcore.store.connect import keys_of, open_store
from fedcore.store.exchange import Exchange

log = logging.getLogger("fedcore.agent")


class RunLauncher(Launcher, Protocol):
    """A launcher for as long as one run lasts."""

    def close(self) -> None:
        """Let go of its watches."""


@dataclass
class _Served:
    """A run that is asked for: who starts its client, for which order, and what was said last."""

    launcher: RunLauncher
    seq: int | None = None
    said: ClientStatus = RUNNING


class Agent:
    """``launch`` makes a launcher for one run, so that several runs can be at work at once."""

    def __init__(
        self,
        site: str,
        server_key: Ed25519PublicKey,
        exchange: Exchange,
        calls: Calls,
        launch: Callable[[], RunLauncher],
    ) -> None:
        self._site = site
        self._server_key = server_key
        self._exchange = exchange
        self._calls = calls
        self._launch = launch
        self._runs: dict[str, _Served] = {}

    def run(self, poll: float) -> None:
        """Look every ``poll`` seconds, for ever. What goes wrong is logged, and tried again."""
        while True:
            try:
                self.look()
            except TemporaryError as error:
                log.warning("%s", error)
            time.sleep(poll)

    def look(self) -> None:
        """Do what is asked now. Raises TemporaryError."""
        try:
            wanted = self._calls.wanted(self._site, self._server_key)
        except OrderRefused as error:
            log.warning("the calls are left alone: %s", error)
            return
        for run_id in self._runs.keys() - wanted.keys():  # cancelled, or over
            self._runs[run_id].launcher.cancel(self._site, run_id)
            self._runs.pop(run_id).launcher.close()
        for run_id, seq in wanted.items():
            if not self._answered(run_id, seq):
                self._serve(run_id, seq)

    def _answered(self, run_id: str, seq: int) -> bool:
        """Whether a client has nothing more to say to the order, as far as anybody can know."""
        said = partial(self._exchange.has_reply, self._site, run_id, seq)
        if not said():
            return False
        if not said("keys"):
            return True  # no secure round: the reply was all
        masked = self._exchange.plan(run_id).secure_aggregation.masked
        return said("unmask" if masked else "consistency")

    def _serve(self, run_id: str, seq: int) -> None:
        if run_id not in self._runs:
            self._runs[run_id] = _Served(self._launch())
        run = self._runs[run_id]
        if run.seq != seq:
            try:
                order, _ = self._exchange.order(self._site, run_id, seq, self._server_key)
            except PermanentError as error:
                self._say(run, run_id, seq, ClientStatus("failed", str(error), permanent=True))
                return
            if isinstance(order, FinishOrder):
                return
            log.info("run %s asks for order %d", run_id, seq)
            run.launcher.ensure(order)
            run.seq, run.said = seq, RUNNING
        status = run.launcher.poll(self._site)
        if status.state == "failed" and not status.permanent:
            run.seq = None  # the next look starts it again
            status = replace(status, state="running")
        self._say(run, run_id, seq, status)

    def _say(self, run: _Served, run_id: str, seq: int, status: ClientStatus) -> None:
        if run.said != status:
            log.info("run %s, order %d: %s %s", run_id, seq, status.state, status.reason)
            self._calls.say(self._site, run_id, seq, status)
        run.said = status


def connect(settings: AgentSettings) -> Agent:
    """The agent that the environment describes. Raises ConfigError."""
    from fedcore.launch.kubernetes import KubernetesLauncher

    policy = policies.load(settings.policy)
    store = open_store(settings.exchange, keys=keys_of(settings.exchange_keys))
    where = KubernetesSite(
        namespace=settings.own_namespace(),
        kubeconfig=settings.kubeconfig,
        job=jobs.load(settings.job),
    )
    return Agent(
        policy.site,
        envelope.public_key(policy.server_public_key),
        Exchange(store),
        Calls(store),
        lambda: KubernetesLauncher({policy.site: where}),
    )
