"""Prometheus sees the run: the server's events, as metrics at an address of this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from fedcore.telemetry import observe_round, run_metrics

log = logging.getLogger("fedcore.run")


class _Observer(logging.Handler):
    """Takes the facts of each round out of the server's events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(logging.INFO)
        self._metrics = run_metrics(registry)

    def emit(self, record: logging.LogRecord) -> None:
        facts = getattr(record, "event", {})
        if facts.get("event") == "round":
            key, scopes = facts["headline"].key, {"all": facts["figure"], **facts["figure_by_site"]}
            measured = {f"{key}.{s}": value for s, value in scopes.items() if value is not None}
            # A site that tells none sent an update that no noise hides.
            spent = [
                s.get("epsilon_spent", math.inf) for s in facts["record"].measurements.values()
            ]
            measured |= {"epsilon": max(spent)} if spent else {}
            observe_round(self._metrics, facts["record"], facts["evaluation"], measured)


@contextmanager
def exposed(port: int | None, address: str = "127.0.0.1") -> Iterator[None]:
    """Serve ``http://<address>:<port>/metrics`` while the block runs; nothing if port is None.

    A port that is taken (by another run of this machine) costs the metrics, not the run.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        log.warning("no metrics of this run at port %d: %s", port, error)
        yield
        return
    observer = _Observer(registry)
    log.addHandler(observer)
    try:
        yield
    finally:
        log.removeHandler(observer)
        server.shutdown()
        thread.join()
