"""Every metric of fedcore for Prometheus: its name, help and labels, once.

A registry is passed in, so that a process may hold several and a test its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fedcore.records import EvaluationRecord, RoundRecord

_SECONDS_OF_A_ROUND = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 14400)
_SECONDS_OF_A_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_NORMS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True)
class RunMetrics:
    """What the server tells of a training run."""

    round_seconds: Histogram
    round_num: Gauge
    clients: Gauge
    bytes: Counter
    macro_auc: Gauge
    dice: Gauge
    epsilon: Gauge
    epsilon_spent: Gauge
    update_norm: Histogram


def run_metrics(registry: CollectorRegistry) -> RunMetrics:
    """Declare the metrics of a training run in ``registry``."""
    return RunMetrics(
        round_seconds=Histogram(
            "fedcore_round_seconds", "Seconds of a round, by phase", ["phase"],
            buckets=_SECONDS_OF_A_ROUND, registry=registry,
        ),
        round_num=Gauge("fedcore_round_num", "Last round that was committed", registry=registry),
        clients=Gauge(
            "fedcore_clients", "Sites of the last round's cohort: aggregated or dropped",
            ["state"], registry=registry,
        ),
        bytes=Counter(
            "fedcore_bytes_total", "Bytes between server and sites: up or down",
            ["direction"], registry=registry,
        ),
        macro_auc=Gauge(
            "fedcore_macro_auc", "Macro AUC of the last evaluation: all, or one site",
            ["scope"], registry=registry,
        ),
        dice=Gauge(
            "fedcore_dice", "Dice of the last evaluation of a segmentation: all, or one site",
            ["scope"], registry=registry,
        ),
        epsilon=Gauge("fedcore_epsilon", "Epsilon spent so far; +Inf without noise",
                      registry=registry),
        epsilon_spent=Gauge(
            "fedcore_epsilon_spent", "Epsilon that the run was charged by a site's budget ledger",
            ["site"], registry=registry,
        ),
        update_norm=Histogram(
            "fedcore_update_norm", "L2 norm of a site's update before clipping",
            buckets=_NORMS, registry=registry,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class ServingMetrics:
    """What a server of predictions tells."""

    requests: Counter
    seconds: Histogram
    model_version: Gauge
    reload_failures: Counter


def serving_metrics(registry: CollectorRegistry) -> ServingMetrics:
    """Declare the metrics of serving in ``registry``."""
    return ServingMetrics(
        requests=Counter(
            "fedcore_predict_requests_total", "Requests for a prediction, by HTTP status",
            ["status"], registry=registry,
        ),
        seconds=Histogram(
            "fedcore_predict_seconds", "Seconds from a request's first byte to its answer",
            buckets=_SECONDS_OF_A_REQUEST, registry=registry,
        ),
        model_version=Gauge("fedcore_model_version", "Version that is served", registry=registry),
        reload_failures=Counter(
            "fedcore_reload_failures_total", "Times a new champion could not be loaded",
            registry=registry,
        ),
    )  # fmt: skip


def observe_round(
    metrics: RunMetrics,
    record: RoundRecord,
    evaluation: EvaluationRecord,
    measurements: Mapping[str, float],
) -> None:
    """Tell of one committed round and the evaluation after it, once.

    ``measurements``: what was measured of its result, ``epsilon``, and ``macro_auc.<scope>`` or
    ``dice.<scope>`` with the scope ``all`` or a site; other names are not for Prometheus.
    """
    for phase, seconds in record.seconds.items():
        metrics.round_seconds.labels(phase).observe(seconds)
    metrics.round_num.set(record.round_num)
    metrics.clients.labels("aggregated").set(len(record.weights))
    metrics.clients.labels("dropped").set(len(record.dropped))
    metrics.bytes.labels("up").inc(record.bytes_up + evaluation.bytes_up)
    metrics.bytes.labels("down").inc(record.bytes_down + evaluation.bytes_down)
    for site, said in record.measurements.items():
        if "update_norm" in said:
            metrics.update_norm.observe(said["update_norm"])
        if "epsilon_spent" in said:
            metrics.epsilon_spent.labels(site).set(said["epsilon_spent"])
    figures = {"macro_auc": metrics.macro_auc, "dice": metrics.dice}
    for name, value in measurements.items():
        figure, _, scope = name.partition(".")
        if name == "epsilon":
            metrics.epsilon.set(value)
        elif scope and figure in figures:
            figures[figure].labels(scope).set(value)
