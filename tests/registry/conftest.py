from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedcore.registry.api import Registry
from fedcore.store.memory import MemoryStore


def interval(value: float | None) -> dict[str, float | None]:
    if value is None:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def figures(auc: float | None) -> dict[str, Any]:
    return {
        "num_examples": 40,
        "macro_auc": interval(auc),
        "accuracy": interval(0.8),
        "sensitivity": interval(0.7),
        "specificity": interval(0.9),
        "f1": interval(0.75),
        "calibration_error": 0.04,
        "per_class": {
            name: {
                "num_examples": 20,
                "auc": interval(auc),
                "sensitivity": interval(0.7),
                "specificity": interval(0.9),
                "f1": interval(0.75),
            }
            for name in ("none", "glioma")
        },
        "confusion": [[18, 2], [4, 16]],
        "roc": {},
        "reliability": [],
        "undefined": [] if auc is not None else ["glioma"],
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    return {
        "all": {
            "overall": figures(0.93),
            "groups": {"sex": {"F": figures(0.95), "M": figures(0.9)}},
            "suppressed": {"age_band": 3},
        },
        "sites": {
            "north": {"overall": figures(0.94), "groups": {}, "suppressed": {}},
            "south": {"overall": figures(None), "groups": {}, "suppressed": {}},
        },
    }


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store, "brain")


@pytest.fixture
def register(registry: Registry, metrics: dict[str, Any]) -> Callable[..., int]:
    def register(run_id: str = "run-1", *, into: Registry = registry, **changed: Any) -> int:
        fields: dict[str, Any] = {
            "model": f"onnx of {run_id}".encode(),
            "params": {"head.bias": np.full(3, len(run_id), np.float32)},
            "run_id": run_id,
            "created": "2026-01-02T03:04:05+00:00",
            "plan_digest": "ab" * 32,
            "plan": {
                "purpose": "brain-research",
                "task": {
                    "classes": ["none", "glioma"],
                    "modalities": {"t1": {"kind": "mr"}, "pet": {"kind": "pet"}},
                    "model": {"function": "fedcore.models.build:classifier"},
                },
            },
            "onnx_max_abs_diff": 2e-6,
            "verdict": {
                "passed": True,
                "reasons": [],
                "checks": [
                    {"name": "min_macro_auc", "threshold": 0.85, "value": 0.93, "passed": True,
                     "reason": ""}
                ],
            },
            "metrics": metrics,
            "privacy": {
                "unit": "site", "epsilon": None, "delta": 1e-5,
                "statement": "No formal guarantee: no noise.",
            },
            "participants": {
                "south": {"num_subjects": 1, "modalities": {"t1": 1}, "left_out": {"empty": 2}},
                "north": {"num_subjects": 30, "modalities": {"t1": 30, "pet": 12}, "left_out": {}},
            },
            "fedcore_version": "0.1.0",
            **changed,
        }  # fmt: skip
        return into.register(**fields)

    return register
