"""``make bench``: every benchmark in one run, into ``benchmarks/results.json``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import (
    aggregation,
    ckks,
    compression,
    dpsgd,
    launching,
    overhead,
    preprocess,
    secagg,
)
from fedcore.terminal import show_rows


def main() -> None:
    results: list[dict[str, object]] = []
    for benchmark in (
        aggregation, compression, overhead, launching, secagg, ckks, dpsgd, preprocess
    ):  # fmt: skip
        benchmark.main(results)
    path = Path(__file__).parent / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    show_rows("Benchmarks", results)


if __name__ == "__main__":
    main()
