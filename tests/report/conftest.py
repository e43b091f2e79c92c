"""A run as the flows would report it, made up but plausible, with everything in it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcore.config.plan import Plan
from fedcore.report import RunReport

CLASSES = ["none", "glioma", "meningioma", "pituitary"]
SITES = {"charite": 0.95, "karolinska": 0.97, "mayo": 0.93, "tata-memorial": 0.89}
MODALITIES = {
    "t1ce": {"kind": "mr", "path": "anat/*_ce-gadolinium_T1w.nii.gz"},
    "flair": {"kind": "mr", "path": "anat/*_FLAIR.nii.gz"},
    "ct": {"kind": "ct", "path": "ct/*_ct.nii.gz", "window": [-50, 150]},
    "pet": {"kind": "pet", "path": "pet/*_pet.nii.gz", "window": [0, 12]},
}


@pytest.fixture(scope="session")
def sample_run() -> Callable[..., RunReport]:
    """``sample_run(**changes)``: the sample with some fields replaced."""
    run = make_run()
    return lambda **changes: replace(run, **changes)


def make_run(rounds: int = 12) -> RunReport:
    rng = np.random.default_rng(7)
    plan = make_plan(rounds)
    overall = summary(rng, 0.94, 232)
    sites = {
        site: {
            "summary": summary(rng, auc, 58),
            "num_examples": {"train": 140, "validation": 35, "test": 58},
            "modalities": {m: 233 - 8 * i for i, m in enumerate(MODALITIES)
                           if (site, m) not in {("mayo", "pet"), ("tata-memorial", "ct")}},
            "left_out": {},
            "refusals": [],
        }
        for site, auc in SITES.items()
    }  # fmt: skip
    sites["mayo"]["left_out"] = {"truncated NIfTI": 2, "no_consent": 5}
    sites["tata-memorial"]["left_out"] = {"diagnosis not in the plan's classes": 1}
    sites["tata-memorial"]["refusals"] = ["plan digest 41c0… is not on the site's list"]
    groups = {
        "sex": {"F": summary(rng, 0.95, 121), "M": summary(rng, 0.93, 111)},
        "age_band": {"under 40": summary(rng, 0.92, 49), "40–59": summary(rng, 0.95, 98),
                     "60 and over": summary(rng, 0.93, 85)},
        "scanner": {"GE 3T": summary(rng, 0.94, 103), "Siemens 3T": summary(rng, 0.96, 88)},
    }  # fmt: skip
    return RunReport(
        run_id="brain-tumour-20261124-a3f9",
        plan=plan.model_dump(mode="json"),
        plan_digest=plan.digest,
        params_sha256="9b74c9897bac770ffc029102a200c5de6f5f8f0e0d9a3c1b6a1c9b0f4f1d2e3c",
        started="2026-11-24T09:12:03+00:00",
        ended="2026-11-24T09:16:21+00:00",
        version="0.1.0",
        history=[make_round(rng, n, rounds) for n in range(rounds)],
        final={"overall": overall, "groups": groups, "suppressed": {"scanner": 41}},
        sites=sites,
        fairness={
            "sex": {"gap": 0.021, "best": "F", "worst": "M", "metric": "macro_auc",
                    "undefined": ["X"], "equal_opportunity": {"gap": 0.018}},
            "age_band": {"gap": 0.034, "best": "40–59", "worst": "under 40", "metric": "macro_auc"},
            "scanner": {"gap": None, "best": None, "worst": None, "metric": "macro_auc"},
        },
        verdict={
            "passed": True,
            "reasons": [],
            "checks": [
                check("min_macro_auc", 0.85, overall["macro_auc"]["value"]),
                check("min_sensitivity", 0.6, overall["sensitivity"]["value"]),
                check("min_site_auc", 0.75, SITES["tata-memorial"]),
                check("max_group_gap", 0.15, 0.034),
            ],
        },
        onnx={"path": "models/brain-tumour/3/model.onnx", "max_abs_diff": 2.4e-6},
        registry={"name": "brain-tumour", "version": 3, "champion": True},
        privacy={"unit": "site", "epsilon": None, "delta": 1e-5, "statement": ""},
        bytes_up=47_812_000,
        bytes_down=51_230_000,
        params_bytes=1_060_000,
        seconds={"data": 21.5, "train": 143.0, "aggregate": 0.9, "evaluate": 38.2, "export": 11.3},
        baselines={
            "single_site_macro_auc": {"charite": 0.86, "karolinska": 0.88, "mayo": 0.81,
                                      "tata-memorial": 0.78},
            "centralised_macro_auc": 0.951,
        },
        isolation=[
            {"site": a, "target": f"bucket {b}", "action": action, "allowed": a == b,
             "expected": a == b}
            for a in SITES for b in SITES for action in ("read", "write")
        ],
        pictures=[picture(rng, name) for name in CLASSES],
        data_note="Every subject is synthetic: real MNI152 anatomy, made-up lesions and scanners.",
    )  # fmt: skip


def make_plan(rounds: int) -> Plan:
    return Plan.model_validate({
        "name": "brain-tumour", "purpose": "brain-tumour-research", "seed": 7, "rounds": rounds,
        "task": {"classes": CLASSES, "groups": ["sex", "age_band", "scanner"],
                 "modalities": MODALITIES, "dataset": {"function": "a.b:dataset"},
                 "model": {"function": "a.b:model", "arguments": {"width": 8}}},
        "privacy": {"clip_norm": 3.0},
        "gates": {"min_macro_auc": 0.85, "min_sensitivity": 0.6, "min_site_auc": 0.75,
                  "max_group_gap": 0.15},
    })  # fmt: skip


def check(name: str, threshold: float, value: float) -> dict[str, Any]:
    return {"name": name, "threshold": threshold, "value": value, "passed": True, "reason": ""}


def interval(value: float, n: int) -> dict[str, float]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.002) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def make_round(rng: np.random.Generator, n: int, rounds: int) -> dict[str, Any]:
    learnt = 1 - math.exp(-3.2 * (n + 1) / rounds)
    late = {"mayo": "no reply within 300 s"} if n == 4 else {}
    active = [site for site in SITES if site not in late]
    return {
        "round_num": n,
        "cohort": list(SITES),
        "dropped": late,
        "macro_auc": interval(0.55 + 0.41 * learnt + rng.normal(0, 0.008), 140),
        "accuracy": interval(0.28 + 0.56 * learnt + rng.normal(0, 0.012), 140),
        "loss": {s: 1.39 - 1.05 * learnt + rng.normal(0, 0.04) + 0.05 * i
                 for i, s in enumerate(active)},
        "update_bytes": 990_000 * len(active),
        "bytes_up": 990_000 * len(active),
        "bytes_down": 1_060_000 * len(SITES),
        "seconds": {"orders": 0.1, "train": 11.5 + rng.normal(0, 0.4), "collect": 0.5,
                    "aggregate": 0.08, "evaluate": 2.9, "commit": 0.05},
        "update_norm": {s: 3.6 * math.exp(-n / 7) + rng.normal(0, 0.1) + 0.15 * i
                        for i, s in enumerate(active)},
    }  # fmt: skip


def summary(rng: np.random.Generator, auc: float, n: int) -> dict[str, Any]:
    sensitivity = auc - 0.12
    counts = rng.multinomial(n, [0.2, 0.34, 0.28, 0.18])
    spread = (1 - sensitivity) / (len(CLASSES) - 1)
    chances = np.full((4, 4), spread) + np.eye(4) * (sensitivity - spread)
    fpr = np.linspace(0, 1, 41)
    return {
        "num_examples": n,
        "macro_auc": interval(auc, n),
        "accuracy": interval(sensitivity, n),
        "sensitivity": interval(sensitivity, n),
        "specificity": interval(0.94, n),
        "f1": interval(sensitivity - 0.01, n),
        "calibration_error": 0.043,
        "per_class": {
            name: {"num_examples": int(counts[i]), "auc": interval(min(auc + 0.02 * i, 0.99), n),
                   "sensitivity": interval(sensitivity, n), "specificity": interval(0.94, n),
                   "f1": interval(sensitivity - 0.01, n)}
            for i, name in enumerate(CLASSES)
        },
        "confusion": [rng.multinomial(k, chances[i]).tolist() for i, k in enumerate(counts)],
        "roc": {name: {"fpr": fpr.tolist(), "tpr": (fpr ** (0.13 - 0.03 * i)).tolist()}
                for i, name in enumerate(CLASSES)},
        "reliability": [{"confidence": c, "observed": c - 0.06 + 0.08 * (c - 0.5),
                         "num_examples": int(n * w)}
                        for c, w in ((0.35, 0.05), (0.5, 0.1), (0.65, 0.15), (0.8, 0.25),
                                     (0.95, 0.45))],
        "undefined": [],
    }  # fmt: skip


def picture(rng: np.random.Generator, title: str, shape: tuple[int, ...] = (46, 55, 46)) -> Any:
    """An egg with two ventricles for a brain, and a ball for a lesion on the patient's right."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt((x / 0.78) ** 2 + (y / 0.88) ** 2 + (z / 0.75) ** 2)
    cortex = np.clip((1 - radius) * 9, 0, 1)
    ventricles = ((abs(x) - 0.13) / 0.07) ** 2 + (y / 0.35) ** 2 + ((z - 0.1) / 0.2) ** 2 < 1
    folds = 0.75 + 0.25 * np.tanh(4 * np.sin(22 * x) * np.sin(19 * y) * np.cos(17 * z))
    tissue = cortex * np.where(ventricles, 0.15, np.where(radius < 0.62, 0.85, folds * 0.7))
    ball = ((x - 0.34) ** 2 + (y - 0.2) ** 2 + (z - 0.15) ** 2) < 0.055
    lesion = ball if title != "none" else np.zeros_like(ball)
    skull = (radius > 1.0) & (radius < 1.14)

    def image(brain: float, lesion_value: float, bone: float, noise: float) -> Any:
        return brain * tissue + lesion * lesion_value + bone * skull + rng.normal(0, noise, shape)

    images = {"t1ce": image(700, 420, 200, 15), "flair": image(420, 500, 120, 12),
              "ct": image(38, 16, 900, 2.5), "pet": image(6.5, 4.5, 0.6, 0.25)}  # fmt: skip
    return {"title": title, "images": images, "mask": lesion,
            "note": "Synthetic, held out at karolinska."}  # fmt: skip
