"""Subjects prepared: what is kept is fetched, the rest is made, in as many processes as fit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from fedcore.data.preparation import Pipeline, Prepared, Verdict, prepare
from fedcore.data.prepared import Kept
from fedcore.errors import ServiceUnavailable


class Preparer:
    """Prepares one subject a call; may be called from several threads at a time.

    ``kept``: where what is made is kept; None = it is not. ``workers``: processes; with 1 the
    caller's own does it. They are handed bytes and hand back arrays: no credential, no store.
    """

    def __init__(self, pipeline: Pipeline, kept: Kept | None = None, *, workers: int = 1) -> None:
        self._pipeline, self._kept, self._workers = pipeline, kept, workers
        self._pool: ProcessPoolExecutor | None = None
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=error is not None)

    def __call__(
        self,
        subject: str,
        files: Mapping[str, bytes],
        verdicts: Mapping[str, tuple[str, Verdict]],
    ) -> Prepared:
        """Raises what ``prepare`` raises, StoreUnavailable, and ServiceUnavailable where a worker
        was killed."""
        if self._kept is None:
            return self._made(files, verdicts)
        key = self._kept.key(subject, files, verdicts)
        found = self._kept.get(key)
        if found is None:
            found = self._made(files, verdicts)
            self._kept.put(key, found)
        return found

    def _made(
        self, files: Mapping[str, bytes], verdicts: Mapping[str, tuple[str, Verdict]]
    ) -> Prepared:
        if self._workers == 1 or not files:
            return prepare(self._pipeline, files, verdicts)
        with self._starting:  # only now: what is found needs no process
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(prepare, self._pipeline, dict(files), dict(verdicts)).result()
        except BrokenProcessPool as error:
            raise ServiceUnavailable(
                "a process that prepared images was killed, most likely for memory: give the "
                "client more of it, or prepare ahead with `fedcore site prepare --workers 1`"
            ) from error
