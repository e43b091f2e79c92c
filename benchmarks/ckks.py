"""Homomorphic encryption: seconds, bytes and precision of a million values, and memory by sites.

What a site does (encrypt, tag), what the server does (parse and add one site's ciphertexts), and
what the opening site does (decrypt, check, flood, round), each in a fresh process, with the packed
ciphertexts in files as they come from the exchange. The usual parameters of the literature (degree
8192; primes of 60, 40 and 60 bits) stand beside the ones that ``fitting`` chooses. Peak memory is
the server's process: with the interpreter, the libraries, the sum and one site's ciphertexts.

    python benchmarks/ckks.py
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import seeds
from fedcore.privacy import ckks

VALUES = 1_000_000
COUNTS = (4, 16, 64)
DISTINCT = 4  # more sites send these again
REPETITIONS = 3
SHARE = 0.1
GROWTH_GOAL = 1.1
CONTEXT = b"benchmark"
USUAL = ckks.Parameters(8192, (60, 40, 60), 2.0**40, 1.0, max(COUNTS))

Row = dict[str, Any]
Study = tuple[ckks.Parameters, bytes, bytes]


def vector(site: int, length: int = VALUES) -> NDArray[np.float32]:
    """An update as it is after clipping to a norm of 1, but for one value that is the bound."""
    values = seeds.generator(0, "ckks", site).standard_normal(length, dtype=np.float32)
    values /= np.float32(np.sqrt(length))
    values[0] = 1.0
    return values


def site_work(study: Study, site: int, length: int, file: Path) -> dict[str, float]:
    """A site's part, its ciphertexts and its tag left in ``file``."""
    parameters, secret, _ = study
    values = vector(site, length)
    begin = time.perf_counter()
    packed = ckks.pack(ckks.encrypt(values, secret, parameters))
    encrypted = time.perf_counter()
    tag = ckks.tag(values, secret, parameters, CONTEXT, f"site-{site}")
    end = time.perf_counter()
    file.write_bytes(packed)
    file.with_suffix(".tag").write_bytes(tag)
    return {"encrypt": encrypted - begin, "tag": end - encrypted, "bytes": len(packed)}


def server_work(study: Study, files: Sequence[Path], count: int, length: int) -> dict[str, float]:
    """Add ``count`` sites. The first only takes its place, so it is not in the seconds."""
    count_what_is_held()
    parameters, _, public = study
    total, took = ckks.Sum(public, parameters, length), []
    for file in islice(cycle(files), count):
        packed = file.read_bytes()
        begin = time.perf_counter()
        total.add(ckks.unpack(packed, length, parameters))
        took.append(time.perf_counter() - begin)
        del packed  # before the next is read
    return {"add": statistics.median(took[1:]), "peak": peak_bytes()}


def opening_work(study: Study, files: Sequence[Path], length: int) -> dict[str, float]:
    """Open the sum of all files, and see how far off it is."""
    parameters, secret, public = study
    total = ckks.Sum(public, parameters, length)
    for file in files:
        total.add(ckks.unpack(file.read_bytes(), length, parameters))
    chunks = list(total.chunks())
    tag = ckks.add_tags(file.with_suffix(".tag").read_bytes() for file in files)
    sites = [f"site-{i}" for i in range(len(files))]
    begin = time.perf_counter()
    opened = ckks.release(chunks, length, tag, sites, 2, secret, parameters, CONTEXT)
    took = time.perf_counter() - begin
    exact = sum(vector(i, length).astype(np.float64) for i in range(len(files)))
    return {"open": took, "error": float(np.abs(opened - exact).max())}


def count_what_is_held() -> None:
    """Have glibc give freed memory back, so that the peak is what was held and the same each time.

    Else it keeps holes: one heap for each of TenSEAL's threads, and up to three files' worth of
    blocks. Those reach their size by the eighth site and depend on timing, not on the sites.
    """
    m_mmap_threshold, m_arena_max = -3, -8  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_mmap_threshold, 1 << 20)
    libc.mallopt(m_arena_max, 1)


def peak_bytes() -> int:
    """This process's high-water mark. Not ``ru_maxrss``: a child inherits its parent's."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status has no VmHWM: the benchmark needs Linux")


def main(results: list[Row]) -> list[Row]:
    """Measure; append the rows to ``results`` and return them."""
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="fedcore-benchmark-") as folder,
        ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as fresh,
    ):
        for name, parameters, length in (
            ("ckks", ckks.fitting(1.0, max(COUNTS)), VALUES),
            ("ckks.usual", USUAL, VALUES),
            ("ckks.selective", ckks.fitting(1.0, max(COUNTS)), int(SHARE * VALUES)),
        ):
            study = (parameters, *ckks.generate(parameters))
            rows += one_setting(name, study, length, Path(folder), fresh)
            if name == "ckks":
                files = sorted(Path(folder).glob("ckks-*.bin"))
                rows += memory(study, files, fresh)
    results.extend(rows)
    return rows


def one_setting(
    name: str, study: Study, length: int, folder: Path, fresh: ProcessPoolExecutor
) -> list[Row]:
    """Seconds and bytes of ``length`` of ``VALUES`` values; the selective case sends a share."""
    files = [folder / f"{name}-{i}.bin" for i in range(DISTINCT)]
    sent = [fresh.submit(site_work, study, i, length, f).result() for i, f in enumerate(files)]
    added = [
        fresh.submit(server_work, study, files, DISTINCT, length).result()
        for _ in range(REPETITIONS)
    ]
    opened = [fresh.submit(opening_work, study, files, length).result() for _ in range(REPETITIONS)]
    size, plain = sent[0]["bytes"], 4 * VALUES
    if length < VALUES:
        size += 4 * (VALUES - length)  # the rest, plain
    bound = ckks.error_bound(study[0], DISTINCT)
    return [
        row(f"{name}.encrypt", statistics.median(s["encrypt"] for s in sent), "s"),
        row(f"{name}.tag", statistics.median(s["tag"] for s in sent), "s"),
        row(f"{name}.add_one_site", statistics.median(a["add"] for a in added), "s"),
        row(f"{name}.open", statistics.median(o["open"] for o in opened), "s"),
        row(f"{name}.expansion", size / plain, "ratio"),
        row(f"{name}.error", max(o["error"] for o in opened), "", bound),
    ]


def memory(study: Study, files: Sequence[Path], fresh: ProcessPoolExecutor) -> list[Row]:
    rows, peaks = [], {}
    for count in COUNTS:
        work = fresh.submit(server_work, study, files, count, VALUES).result()
        peaks[count] = work["peak"]
        rows.append(row(f"ckks.peak_memory.{count}", work["peak"] / 1e6, "MB"))
    growth = max(peaks.values()) / peaks[COUNTS[0]]
    return [*rows, row("ckks.peak_memory.growth", growth, "ratio", GROWTH_GOAL)]


def row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
    """``value`` to five digits: some are 10^-7."""
    met = None if goal is None else value <= goal
    rounded = None if goal is None else float(f"{goal:.5g}")
    return {
        "name": name, "value": float(f"{value:.5g}"), "unit": unit, "goal": rounded, "met": met,
    }  # fmt: skip


if __name__ == "__main__":
    for result in main([]):
        print(json.dumps(result))
