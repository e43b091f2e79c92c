"""What a plan's dataset function is given: the site's files, and what they may be used for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fedcore.config.task import Task


class Files(Protocol):
    """The part of a Store that reading data needs: a bucket, a folder or a dictionary."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with ``prefix``, sorted."""


@dataclass(frozen=True)
class SiteData:
    """``files`` holds the site's data; ``purpose`` is what the subjects must have consented to.

    A dataset function ``f(site: SiteData, **arguments)`` returns a mapping with the datasets
    ``train``, ``validation`` and ``test``. Each has ``__len__`` and ``__getitem__(i) → (inputs,
    target)``; optional attributes are ``groups`` (attribute → one value per example), ``targets``
    (the class of each example, so that they need not be read for it), ``summary`` (a DataSummary of
    that split) and ``collate(items) → (inputs, targets)``.
    """

    task: Task
    files: Files
    purpose: str
