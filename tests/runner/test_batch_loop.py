"""The loop over batches: what is halved, what is yielded, and what is closed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibbon.models.memory import BatchSize
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import Attempt, TooLarge, boundary

CPU = torch.device("cpu")


class Stream:
    """Gives slices, and counts how often it was opened and closed."""

    def __init__(self) -> None:
        self.opened = self.closed = 0

    def __call__(self, parts: Sequence[slice]) -> Generator[slice]:
        self.opened += 1
        try:
            yield from parts
        finally:
            self.closed += 1


@given(
    count=st.integers(0, 200),
    first=st.integers(1, 64),
    fitting=st.lists(st.integers(1, 64), min_size=1, max_size=20),
)
def test_every_example_counts_once_whatever_fits(
    count: int, first: int, fitting: list[int]
) -> None:
    """What fits changes from attempt to attempt; a single example always does."""
    stream, size, notes = Stream(), BatchSize(first, fixed=False), []
    tried: list[int] = []

    def compute(items: Iterator[slice], attempt: Attempt) -> list[int]:
        part = next(items)
        room = fitting[len(tried) % len(fitting)]
        tried.append(attempt.count)
        assert attempt.count == part.stop - part.start <= attempt.room
        assert attempt.may_halve == (attempt.count > 1)
        if attempt.count > room and attempt.may_halve:
            raise TooLarge
        return list(range(part.start, part.stop))

    found = list(
        in_batches(count, size, device=CPU, fetch=stream, compute=compute, note=notes.append)
    )
    assert [each for examples, _ in found for each in examples] == list(range(count))
    assert all(len(examples) == number for examples, number in found)
    assert stream.opened == stream.closed
    assert len(tried) == len(found) + len(notes)


def test_the_size_and_the_stream_are_told_of_a_shortage() -> None:
    stream, size, notes = Stream(), BatchSize(8, fixed=False), []

    def compute(items: Iterator[slice], attempt: Attempt) -> int:
        next(items)
        with boundary(pytest.fail, attempt):
            if attempt.count > 3:
                raise torch.OutOfMemoryError
        return attempt.count

    batches = in_batches(9, size, device=CPU, fetch=stream, compute=compute, note=notes.append)
    assert list(batches) == [(2, 2), (2, 2), (2, 2), (2, 2), (1, 1)]
    assert notes == [
        "out of memory with 8 examples at a time, continuing with 4",
        "out of memory with 4 examples at a time, continuing with 2",
    ]
    assert stream.opened == stream.closed == 3
    assert size.now == 2
    size.reset()
    assert size.now == 8


def test_a_consumer_that_stops_closes_the_stream() -> None:
    stream = Stream()
    batches = in_batches(
        9,
        BatchSize(2, fixed=True),
        device=CPU,
        fetch=stream,
        compute=lambda items, attempt: next(items),
        note=pytest.fail,
    )
    assert next(batches) == (slice(0, 2), 2)
    batches.close()
    assert (stream.opened, stream.closed) == (1, 1)


def test_a_size_that_was_chosen_is_never_halved() -> None:
    assert not BatchSize(8, fixed=True).may_halve(8)
    assert BatchSize(8, fixed=False).may_halve(8)
    assert not BatchSize(8, fixed=False).may_halve(1)
