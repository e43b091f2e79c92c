"""Many trainings on a few processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any, TypeVar

from fedcore.terminal import progress_bar

T = TypeVar("T")

WORKERS = 2


def played(play: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """What ``play`` makes of each job's arguments, in their order, under a bar.

    A process keeps what it has read for the jobs that follow, so put jobs on the same data in a
    row.
    """
    with (
        ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool,
        progress_bar() as bar,
    ):
        task = bar.add_task(play.__module__.rpartition(".")[2], total=len(jobs))
        for job, result in zip(jobs, pool.map(play, *zip(*jobs, strict=True)), strict=True):
            print(*job, result, flush=True)  # what a study that is stopped leaves
            bar.advance(task)
            yield result


def by_method(
    score: Callable[..., T], methods: Iterable[str], seeds: Iterable[int], *first: Any
) -> dict[str, list[T]]:
    """Method → what each seed came to. ``first``: what ``score`` takes before those two."""
    jobs = [(*first, *job) for job in product(methods, seeds)]
    found: dict[str, list[T]] = {}
    for job, result in zip(jobs, played(score, jobs), strict=True):
        found.setdefault(job[-2], []).append(result)
    return found
