from __future__ import annotations

import threading

import pytest

from fedcore.store.ahead import ahead

PATIENCE = 10.0


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_same_items_in_the_same_order(depth):
    assert list(ahead(iter(range(5)), depth)) == [0, 1, 2, 3, 4]
    assert list(ahead([], depth)) == []
    assert list(ahead([None, None], depth)) == [None, None]


def test_reads_the_next_while_the_caller_works():
    second_read = threading.Event()

    def items():
        yield "first"
        second_read.set()
        yield "second"

    stream = ahead(items())
    assert next(stream) == "first"
    assert second_read.wait(PATIENCE)  # although nobody asked for it yet
    assert list(stream) == ["second"]


@pytest.mark.parametrize("depth", [1, 3])
def test_reads_at_most_depth_ahead(depth):
    read = []
    stream = ahead((read.append(n) or n for n in range(20)), depth)
    for n in range(10):
        assert next(stream) == n
        assert len(read) <= n + 1 + depth
    stream.close()


@pytest.mark.parametrize("depth", [1, 3])
def test_an_exception_comes_where_its_item_would_have(depth):
    def items():
        yield 1
        yield 2
        raise OSError("the disk went away")

    seen = []

    def work():
        for item in ahead(items(), depth):
            seen.append(item)

    with pytest.raises(OSError, match="went away"):
        work()
    assert seen == [1, 2]
    assert readers() == []


def test_closing_early_stops_the_thread():
    read = []
    stream = ahead(read.append(n) or n for n in range(1000))
    assert next(stream) == 0
    stream.close()
    assert readers() == []
    assert len(read) <= 2


def test_a_caller_that_fails_stops_the_thread():
    def work():
        stream = ahead(iter(range(1000)))
        try:
            for _ in stream:
                raise RuntimeError("the caller's own")
        finally:
            stream.close()

    with pytest.raises(RuntimeError):
        work()
    assert readers() == []


def test_the_end_stops_the_thread():
    assert list(ahead(iter("ab"))) == ["a", "b"]
    assert readers() == []
