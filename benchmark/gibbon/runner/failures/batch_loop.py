"""Loops over batches, and halves them if memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import torch

from gibbon.models.memory import BatchSize, give_back
from gibbon.runner.failures.boundary import Attempt, TooLarge

BatchItem = TypeVar("BatchItem")
Result = TypeVar("Result")


def in_batches(
    count: int,
    size: BatchSize,
    *,
    device: torch.device,
    fetch: Callable[[Sequence[slice]], Generator[BatchItem]],
    compute: Callable[[Iterator[BatchItem], Attempt], Result],
    note: Callable[[str], None],
) -> Generator[tuple[Result, int]]:
    """Yields the result of every batch and its number of examples, until ``count`` are done.

    ``fetch`` returns an iterator over the batches at some positions; ``compute`` takes the next one
    from it and returns the result.  If memory runs out, nothing of this batch is yielded, memory of
    ``device`` is freed, ``note`` receives a sentence for the user, and the examples from the first
    one of the batch on are divided into smaller batches.
    """
    position = 0
    while position < count:
        starts = range(position, count, size.now)
        parts = [slice(start, min(start + size.now, count)) for start in starts]
        with closing(fetch(parts)) as stream:
            for part in parts:
                tried = part.stop - part.start
                try:
                    result = compute(stream, Attempt(tried, size.now, size.may_halve(tried)))
                except TooLarge:
                    break
                yield result, tried
                position = part.stop
        if position < count:
            size.halve(tried)
            give_back(device)
            note(f"out of memory with {tried} examples at a time, continuing with {size.now}")
