"""Subjects prepared: what is kept is fetched, the rest is made, in as many processes as fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from fedcore.data.preparation import Pipeline, Prepared, Verdict, prepare
from fedcore.data.prepared import Kept
from fedcore.data.workers import Workers


class Preparer:
    """Prepares one subject a call; may be called from several threads at a time.

    ``kept``: where what is made is kept; None = it is not. ``workers``: processes; with 1 the
    caller's own does it.
    """

    def __init__(self, pipeline: Pipeline, kept: Kept | None = None, *, workers: int = 1) -> None:
        self._pipeline, self._kept = pipeline, kept
        self._workers = Workers(
            workers,
            "give the client more of it, or prepare ahead with `fedcore site prepare --workers 1`",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._workers.close(cancel=error is not None)

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
        if not files:  # nothing to do: no process for it
            return prepare(self._pipeline, files, verdicts)
        return self._workers(prepare, self._pipeline, dict(files), dict(verdicts))
