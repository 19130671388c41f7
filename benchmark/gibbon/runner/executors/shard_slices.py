"""Divides the examples of a job into shards."""

from __future__ import annotations

PER_WORKER = 4  # shards of full batches for each worker, so that all of them end at about one time
SMALL_PER_WORKER = 2  # shards smaller than that, for each worker: small batches cost more
MOST_BATCHES = 4  # batches of a shard: what is lost with a worker, and the steps of progress
LEAST = 16  # examples of a small shard, unless workers would have nothing to do


def shard_slices(count: int, *, batch: int, workers: int, most: int) -> list[slice]:
    """Returns the positions of each shard of ``count`` examples.

    Args:
        count: number of examples.
        batch: number of examples in a batch.
        workers: number of workers.
        most: the largest number of examples in a shard.

    Shards are whole batches if there are enough of them, so that batches are those of one process;
    else all workers get about equally many examples.

    >>> [each.stop for each in shard_slices(100, batch=10, workers=2, most=1000)]
    [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    >>> [each.stop for each in shard_slices(100, batch=1000, workers=2, most=1000)]
    [25, 50, 75, 100]
    >>> [each.stop for each in shard_slices(5000, batch=1000, workers=2, most=10_000)]
    [834, 1668, 2502, 3336, 4170, 5000]
    >>> [each.stop for each in shard_slices(20, batch=1000, workers=2, most=1000)]
    [10, 20]
    """
    batches = -(-count // batch)
    if batches >= PER_WORKER * workers:
        size = batch * min(MOST_BATCHES, batches // (PER_WORKER * workers))
        size = max(batch, min(size, most // batch * batch))
    else:
        rounds = max(SMALL_PER_WORKER, -(-count // (batch * workers)))
        size = max(-(-count // (rounds * workers)), min(LEAST, -(-count // workers)))
    size = max(1, min(size, most))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
