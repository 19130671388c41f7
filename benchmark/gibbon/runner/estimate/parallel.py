"""Says how much faster a run's workers compute its jobs than one of them would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gibbon.runner.executors.shard_slices import shard_slices
from gibbon.runner.plan.sharing import cores, local_workers
from gibbon.runner.settings import RunSettings


@dataclass(frozen=True)
class Parallel:
    """The workers of a run.

    Args:
        workers: their number; 0 if the run computes in its own process.
        threads: threads of each.
        at_once: how many of them have a processor or a GPU of their own.
        on_device: how many of them share a device, and its memory.
    """

    workers: int = 0
    threads: int = 0
    at_once: float = 1.0
    on_device: int = 1

    def batch(self, count: int, batch: int) -> int:
        """Returns the size of the batches of a job of ``count`` examples."""
        return min(batch, self._slices(count, batch)[0])

    def share(self, count: int, batch: int) -> float:
        """Returns the time of a job, relative to that of one worker alone, at most 1.

        All workers compute shards of one job, and wait for the last of them.
        """
        largest, number = self._slices(count, batch)
        rounds = -(-number // max(1, self.workers))
        return min(1.0, max(rounds * largest / max(1, count), 1 / self.at_once))

    @contextmanager
    def one_worker(self) -> Iterator[None]:
        """Gives this process the threads of a worker, for a ``with`` block."""
        before = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _slices(self, count: int, batch: int) -> tuple[int, int]:
        """Returns the size of the first shard, and the number of shards."""
        if self.workers == 0 or count == 0:
            return count, 1
        slices = shard_slices(count, batch=batch, workers=self.workers, most=count)
        return slices[0].stop, len(slices)


def parallel_of(settings: RunSettings, device: torch.device) -> Parallel:
    """Returns the workers that a run with these settings has.

    Raises a `RequestError` if they are those of a Ray cluster that can't be joined.
    """
    if settings.execution == "in-process":
        return Parallel()
    if settings.execution == "ray":
        from gibbon.runner.executors.ray import ClusterNodes

        nodes = ClusterNodes.of(settings)
        shares, has = nodes.shares(settings), nodes.gpus if nodes.gpus else 0.0
        free = has if shares.gpus else nodes.cpus / shares.cpus
        at_once = max(1.0, min(shares.workers, free))
        sharing = shares.sharing if shares.gpus else 1
        return Parallel(shares.workers, shares.cpus, at_once, sharing)
    count = local_workers(settings, device)
    threads = min(torch.get_num_threads(), max(1, cores() // count))
    if device.type == "cpu":
        return Parallel(count, threads, max(1.0, min(count, cores() / threads)))
    several = device.type == "cuda" and device.index is None
    devices = max(1, torch.cuda.device_count()) if several else 1
    return Parallel(count, threads, min(count, devices), -(-count // devices))
