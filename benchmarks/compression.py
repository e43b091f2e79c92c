"""How fast codecs are, and how many times fewer bytes what they make has.

Encode and decode of one update in one thread: of 25 M values in 50 arrays, and of as many as the
demo's model has. Processor seconds, the best of several, so that what else runs counts less;
values from a normal distribution, which is what Adam's updates look like and leaves no codec
anything to gain from structure. The container is measured apart, over what the codec made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedcore import seeds
from fedcore.compression.chain import Chain, chain
from fedcore.compression.codec import Arrays, Turn
from fedcore.params import Params, nbytes
from fedcore.store import blobs

LARGE, DEMO = 25_000_000, 111_000
GOAL = 300.0  # MB of float32 a second, encode and decode together
REPETITIONS = {LARGE: 3, DEMO: 30}

SIGNS = {"stage": "quantise", "bits": 1}
CODECS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "float16": ([{"stage": "float16"}], True),
    "signs of the largest fifth": ([{"stage": "top_k", "share": 0.2}, SIGNS], False),
    "largest hundredth in 4 bits": (
        [{"stage": "top_k", "share": 0.01}, {"stage": "quantise", "bits": 4}], False,
    ),
    "1 bit, rotated": ([{**SIGNS, "rotate": True}], False),
    "4 bits": ([{"stage": "quantise", "bits": 4}], False),
    "4 bits, rotated, unbiased": ([{"stage": "quantise", "bits": 4, "rotate": True}], True),
    "every fourth": ([{"stage": "subsample", "every": 4}], False),
    "rank 4": ([{"stage": "low_rank", "rank": 4}], False),
}  # fmt: skip
"""Stages by name, and whether rounding is unbiased."""

Row = dict[str, Any]


def main(results: list[Row]) -> list[Row]:
    """Append a row of speed a codec and size, and one of the ratio a codec."""
    for size, told in ((LARGE, "25 M values"), (DEMO, "the demo's model")):
        update = _update(size)
        for name, (stages, unbiased) in CODECS.items():
            codec = chain(stages, unbiased=unbiased)
            seconds, coded = _coding(codec, update, REPETITIONS[size])
            megabytes = nbytes(update) / 1e6
            speed = f"encode and decode, {name}, {told}"
            results.append(_row(speed, megabytes / seconds, "MB/s", GOAL))
            if size == LARGE:
                more, packed = _container(coded)
                whole = megabytes / (seconds + more)
                results.append(_row(f"the same with the container, {name}", whole, "MB/s"))
                results.append(_row(f"times fewer bytes, {name}", nbytes(update) / packed, ""))
    return results


def _coding(codec: Chain, update: Params, repetitions: int) -> tuple[float, Arrays]:
    """Seconds to encode and decode, and what travels."""
    turn = Turn(0, 0, "site")
    coded = codec.encode(update, turn)
    encode = _seconds(lambda: codec.encode(update, turn), repetitions)
    return encode + _seconds(lambda: codec.decode(coded, update, turn), repetitions), coded


def _container(coded: Arrays) -> tuple[float, int]:
    """Seconds to put it in and out, and its bytes in there."""
    packed = blobs.pack(coded, compress=True)
    pack = _seconds(lambda: blobs.pack(coded, compress=True), 1)
    return pack + _seconds(lambda: blobs.unpack(packed), 1), len(packed)


def _update(size: int) -> Params:
    """Fifty matrices, or of few values one; none so small that its shape would tell."""
    count = 50 if size == LARGE else 1
    rng = seeds.generator(0, "benchmark", "compression")
    rows = 250 if size == LARGE else 300
    shape = (rows, size // count // rows)
    return {f"w{i:02}": 0.01 * rng.standard_normal(shape, np.float32) for i in range(count)}


def _seconds(work: Callable[[], object], repetitions: int) -> float:
    """Processor seconds of the fastest."""
    spent = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def _row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
    met = None if goal is None else bool(value >= goal)
    return {"name": name, "value": round(float(value), 1), "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    for row in main([]):
        print(row)
