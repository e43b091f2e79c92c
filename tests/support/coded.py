"""Codings of the toy plan, by name."""

from __future__ import annotations

from typing import Any

TOP_K = {"stage": "top_k", "share": 0.3}
SIGNS = {"stage": "quantise", "bits": 1}
FEW_BITS = {"stage": "quantise", "bits": 3, "rotate": True}

CODINGS: dict[str, dict[str, Any]] = {
    "half": {"up": [{"stage": "float16"}]},
    "bits": {"up": [FEW_BITS]},
    "signs of the largest, both ways": {
        "up": [TOP_K, SIGNS], "down": [TOP_K, SIGNS], "feedback": True, "container": "zstd",
        "last": {"down": [{"stage": "quantise", "bits": 8}]},
    },
    "low rank": {"up": [{"stage": "low_rank", "rank": 1}, FEW_BITS], "feedback": True},
    "in turn": {"up": [{"stage": "subsample", "every": 2}], "down": [FEW_BITS], "feedback": True,
                "container": "zstd"},
}  # fmt: skip
