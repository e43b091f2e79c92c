"""Prometheus sees the run: the server's events, as metrics at an address of this process."""

from __future__ import annotations

import logging
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
            scopes = {"all": facts["macro_auc"], **facts["macro_auc_by_site"]}
            measured = {f"macro_auc.{s}": auc for s, auc in scopes.items() if auc is not None}
            observe_round(self._metrics, facts["record"], measured)


@contextmanager
def exposed(port: int | None) -> Iterator[None]:
    """Serve ``http://127.0.0.1:<port>/metrics`` while the block runs; nothing if port is None."""
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    observer = _Observer(registry)
    log.addHandler(observer)
    try:
        yield
    finally:
        log.removeHandler(observer)
        server.shutdown()
        thread.join()
