"""Reading ahead: the next item is fetched while the caller still works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The same items in the same order, read by a background thread up to ``depth`` ahead.

    At most ``depth`` + 2 items are alive at once: those read ahead, the caller's, and the one it
    is about to replace. An exception of ``items`` comes where its item would have come. When the
    iterator is closed early or its caller fails, the thread ends with the read it is in; nothing
    more is read.
    """
    source = iter(items)
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
    try:
        pending = deque(reader.submit(next, source, _END) for _ in range(depth))
        while (item := pending.popleft().result()) is not _END:
            pending.append(reader.submit(next, source, _END))
            yield item  # type: ignore[misc]  # not _END, so it is a T
    finally:
        reader.shutdown(cancel_futures=True)
