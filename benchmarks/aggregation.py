"""Clip + weigh + sum over many updates, against only reading their bytes once.

The floor is ``Path.read_bytes`` of each update's file, one after the other, the bytes dropped. The
measured work does the same reads and also everything the server does with an update: unpack and
check the blob, check the names and shapes, take the norm (which finds NaN and infinities), clip,
weigh, add in float64, and in the end divide. Both take the files from the page cache, in turns
within one run, each in a fresh process: most of the time of a read goes to pages that are new to
the process, and in a used one the floor can be five times lower or not, by the state of its heap.

    python benchmarks/aggregation.py
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fedcore import seeds
from fedcore.aggregation import mean
from fedcore.params import FloatArray, Params, modules, problem_with
from fedcore.privacy import clipping
from fedcore.store import blobs
from fedcore.store.ahead import ahead

COUNTS = (16, 64, 256)
DISTINCT_FILES = 16  # more updates read these again: 640 MB of disk, not 10 GB
REPETITIONS = 3
RATIO_GOAL = 2.0
GROWTH_GOAL = 1.05

Row = dict[str, Any]


def layout() -> dict[str, tuple[int, ...]]:
    """10 M parameters: four 3-D convolutional encoders, attention over them, and a head."""
    widths = (1, 32, 64, 128, 256, 192)
    shapes: dict[str, tuple[int, ...]] = {}
    for modality in ("t1", "flair", "ct", "pet"):
        for depth, (inputs, outputs) in enumerate(pairwise(widths)):
            shapes[f"encoder.{modality}.conv{depth}.weight"] = (outputs, inputs, 3, 3, 3)
            shapes[f"encoder.{modality}.conv{depth}.bias"] = (outputs,)
    shapes["fusion.attention.weight"] = (4, 192, 192)
    shapes["fusion.attention.bias"] = (4, 192)
    shapes["head.weight"] = (4, 192)
    shapes["head.bias"] = (4,)
    return shapes


def model() -> dict[str, FloatArray]:
    return {name: np.zeros(shape, np.float32) for name, shape in layout().items()}


def write_updates(folder: Path) -> list[Path]:
    """``DISTINCT_FILES`` updates as blobs; written just now, so they are in the page cache."""
    files = []
    for index in range(DISTINCT_FILES):
        rng = seeds.generator(0, "benchmark", index)
        update = {n: rng.standard_normal(s, dtype=np.float32) for n, s in layout().items()}
        files.append(folder / f"site-{index:02}.safetensors")
        files[-1].write_bytes(blobs.pack(update, {"num_examples": 100 + index}))
    return files


def read_only(files: Sequence[Path], count: int) -> None:
    """The floor."""
    for path in islice(cycle(files), count):
        path.read_bytes()


def aggregate(files: Sequence[Path], count: int) -> Params:
    """The measured work: the mean of ``count`` clipped updates."""
    like = model()
    total = mean.start(like)
    for update, num_examples in ahead(updates(files, count)):
        problem = problem_with(update, like)
        norm = clipping.l2_norm(update)
        if problem or not math.isfinite(norm):
            raise SystemExit(f"the benchmark's own update {problem or 'is not finite'}")
        weights = dict.fromkeys(modules(update), float(num_examples))
        total = mean.add(total, update, weights, scale=clipping.factor(norm, clip_norm=1.0))
    return mean.divide(total.trained(), total.weights)


def updates(files: Sequence[Path], count: int) -> Iterator[tuple[Params, int]]:
    for path in islice(cycle(files), count):
        update, header = blobs.unpack(path.read_bytes())
        yield update, header["num_examples"]


def seconds(work: Callable[[Sequence[Path], int], object], files: Sequence[Path], n: int) -> float:
    begin = time.perf_counter()
    work(files, n)
    return time.perf_counter() - begin


def peak_bytes(files: Sequence[Path], count: int) -> int:
    """Most memory that the measured work held at one time, as Python's allocators count it."""
    tracemalloc.start()
    aggregate(files, count)
    return tracemalloc.get_traced_memory()[1]


def main(results: list[Row]) -> list[Row]:
    """Measure; append the rows to ``results`` and return them."""
    rows: list[Row] = []
    peaks = {}
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="fedcore-benchmark-") as folder,
        ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as fresh,
    ):
        files = write_updates(Path(folder))
        for count in COUNTS:
            floor, measured = [], []
            for _ in range(REPETITIONS):
                floor.append(fresh.submit(seconds, read_only, files, count).result())
                measured.append(fresh.submit(seconds, aggregate, files, count).result())
            peaks[count] = fresh.submit(peak_bytes, files, count).result()
            rows += timings(count, statistics.median(floor), statistics.median(measured))
            rows.append(row(f"aggregation.peak_memory.{count}", peaks[count] / 1e6, "MB"))
    growth = max(peaks.values()) / peaks[COUNTS[0]]
    rows.append(row("aggregation.peak_memory.growth", growth, "ratio", GROWTH_GOAL))
    results.extend(rows)
    return rows


def timings(count: int, floor: float, measured: float) -> list[Row]:
    return [
        row(f"aggregation.read_only.{count}", floor, "s"),
        row(f"aggregation.clip_weigh_sum.{count}", measured, "s"),
        row(f"aggregation.ratio.{count}", measured / floor, "ratio", RATIO_GOAL),
    ]


def row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
    met = None if goal is None else value <= goal
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    for result in main([]):
        print(json.dumps(result))
