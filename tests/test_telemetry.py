import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fedcore.records import DataSummary, EvaluationRecord, RoundRecord
from fedcore.telemetry import observe_round, run_metrics, serving_metrics

DASHBOARD = Path(__file__).parents[1] / "dashboards" / "fedcore.json"
_SAMPLES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def record(**changed: Any) -> RoundRecord:
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "round_num": 4,
        "cohort": ("east", "north", "west"),
        "weights": {"east": {"head": 3.0}, "north": {"head": 2.0}},
        "dropped": {"west": "timed out"},
        "params_digest": "ab",
        "data": {"east": DataSummary(3), "north": DataSummary(2)},
        "measurements": {
            "east": {"update_norm": 0.5},
            "north": {"update_norm": 2.0, "epsilon_spent": 1.5},
        },
        "bytes_up": 100,
        "bytes_down": 300,
        "seconds": {"aggregate": 0.2, "collect": 5.0},
        **changed,
    }
    return RoundRecord(**fields)


EVALUATION = EvaluationRecord(
    run_id="run-1", round_num=5, split="validation", summary={}, sites={}, num_examples={},
    missing={}, onnx_max_abs_diff={}, bytes_up=7, bytes_down=40, seconds={},
)  # fmt: skip


def test_a_round_is_told(registry: CollectorRegistry) -> None:
    metrics = run_metrics(registry)
    figures = {"macro_auc.all": 0.9, "macro_auc.north": 0.8, "epsilon": 3.0, "private": 1.0}
    observe_round(metrics, record(), EVALUATION, figures)
    observe_round(metrics, record(round_num=5, bytes_up=50, dropped={}), EVALUATION, {})

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("fedcore_round_num") == 5
    assert value("fedcore_bytes_total", direction="up") == 150 + 2 * 7
    assert value("fedcore_bytes_total", direction="down") == 600 + 2 * 40
    assert value("fedcore_round_seconds_sum", phase="collect") == 10
    assert value("fedcore_clients", state="aggregated") == 2
    assert value("fedcore_clients", state="dropped") == 0
    assert value("fedcore_update_norm_count") == 4
    assert value("fedcore_update_norm_sum") == 5
    assert value("fedcore_macro_auc", scope="north") == 0.8
    assert value("fedcore_epsilon") == 3
    assert value("fedcore_epsilon_spent", site="north") == 1.5
    assert value("fedcore_epsilon_spent", site="east") is None, "it told none"


def test_every_name_is_fedcores_and_explained(registry: CollectorRegistry) -> None:
    run_metrics(registry)
    serving_metrics(registry)
    for family in registry.collect():
        assert family.name.startswith("fedcore_")
        assert family.documentation


def declared() -> set[str]:
    registry = CollectorRegistry()
    run_metrics(registry)
    serving_metrics(registry)
    return {
        family.name + suffix for family in registry.collect() for suffix in _SAMPLES[family.type]
    }


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_the_dashboard_queries_only_what_is_declared() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bfedcore_\w+", query)}
    assert asked
    assert asked <= declared()


def test_every_metric_is_on_the_dashboard() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bfedcore_\w+", query)}
    family = re.compile("_(bucket|sum|count)$")
    assert {family.sub("", name) for name in declared()} == {family.sub("", n) for n in asked}


def test_the_dashboard_groups_by_declared_labels() -> None:
    registry = CollectorRegistry()
    members = [*vars(run_metrics(registry)).values(), *vars(serving_metrics(registry)).values()]
    labels = {label for metric in members for label in metric._labelnames} | {"le"}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    used = {
        label
        for panel in panels
        for target in panel["targets"]
        for label in [
            *re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]),
            *(x.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"])
              for x in group.split(",")),
        ]
    }  # fmt: skip
    assert used
    assert used <= labels


def test_the_dashboards_panels_have_their_own_place() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
