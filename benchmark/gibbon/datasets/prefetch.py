"""Reads examples ahead of their use: by worker processes, in order, in bounded memory.

Worker processes are those of torch's `DataLoader`; what they read comes back through pipes as numpy
arrays, so that neither shared memory nor open files limit it.  They stop when the iterator is
exhausted or dropped, and when the main process is gone, however it ended.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gibbon.core.errors import DatasetError
from gibbon.datasets.base import Batch

T = TypeVar("T")
Ids = NDArray[np.int64]

MOST_WORKERS = 8  # decoding feeds the model long before
FEWEST_FOR_WORKERS = 32  # below, starting processes takes longer than reading
LARGEST_GROUP = 32  # examples that a worker reads at a time
GROUP_BYTES = 4 << 20
GROUPS_AHEAD = 4  # a worker
KEPT_BYTES = 256 << 20
PARENT_SECONDS = 1.0  # how often a worker looks whether the main process is still there


def read_ahead(
    read: Callable[[Ids], T], groups: Sequence[Ids], *, workers: int
) -> Iterator[tuple[Ids, T]]:
    """Yields each group of ids with what ``read`` makes of it, in the order of the groups.

    Args:
        read: reads a group; it can be pickled where processes are not forked.
        groups: lists of example ids.
        workers: processes that read; none if 0.

    Raises `DatasetError` as ``read`` does, also where it does so in a worker, and where a worker
    dies.
    """
    if workers == 0 or not groups:
        for group in groups:
            yield group, read(group)
        return
    found = _start(read, groups, workers=workers)
    for group in groups:
        try:
            part = next(found)
        except RuntimeError as error:
            raise DatasetError(
                f"a process that reads pictures ended unexpectedly ({error}); "
                "--workers 0 reads in the main process"
            ) from error
        if isinstance(part, _Raised):
            raise DatasetError(part.message)
        yield group, part


def choose_workers(asked: int | None, count: int) -> int:
    """Returns how many processes read ``count`` examples: as asked, or as the machine suggests."""
    if asked is not None:
        return asked if count else 0
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    worth = count >= FEWEST_FOR_WORKERS and (available or 1) > 1
    return min(available or 1, MOST_WORKERS) if worth else 0


def grouped(ids: Ids, *, size: int, workers: int) -> list[Ids]:
    """Returns the ids in groups that one worker reads at a time.

    ``size`` is the number of bytes of one example; 0 where it is not known.

    >>> [len(group) for group in grouped(np.arange(100), size=3 << 20, workers=2)][:3]
    [1, 1, 1]
    >>> [len(group) for group in grouped(np.arange(100), size=784, workers=2)][:3]
    [13, 13, 13]
    """
    fitting = max(1, GROUP_BYTES // max(1, size))
    spread = -(-len(ids) // (GROUPS_AHEAD * max(1, workers)))
    step = max(1, min(LARGEST_GROUP, fitting, spread))
    return [ids[start : start + step] for start in range(0, len(ids), step)]


class Kept:
    """Examples that stay in memory once they were read, as many as fit.

    What came first stays: dropping the oldest would lose all of them in every pass over a dataset
    that is larger than this.  They lie in one block, since thousands of pieces that live long
    between others that do not would hold several times their size.

    Args:
        count: how many examples there are.
        shape, dtype: of one of them.
    """

    def __init__(self, count: int, shape: tuple[int, ...], *, dtype: np.dtype[Any]) -> None:
        size = max(1, math.prod(shape) * dtype.itemsize)
        room = min(count, KEPT_BYTES // size)
        self.holds_all = room == count
        self._block = np.empty((room, *shape), dtype)  # takes no memory until it is written to
        self._rows: dict[int, int] = {}

    def add(self, example: int, content: NDArray[Any]) -> None:
        """Keeps an example if there is room."""
        row = len(self._rows)
        if example in self._rows or row == len(self._block) or not self._fits(content):
            return
        self._block[row] = content
        self._rows[example] = row

    def examples(self) -> set[int]:
        """Returns which examples are kept."""
        return set(self._rows)

    def __getitem__(self, example: int) -> NDArray[Any]:
        content: NDArray[Any] = self._block[self._rows[example]]
        return content

    def _fits(self, content: NDArray[Any]) -> bool:
        return bool(content.shape == self._block.shape[1:])


@dataclass(frozen=True)
class Assembly:
    """Makes batches of what is kept and of what is read.

    Args:
        read: returns what a group of ids stands for, an array each.
        labels: of all examples.
        kept: what needs not be read.
        size: bytes of one example.
        scale: what inputs are divided by.
        workers: processes to read with; chosen if None.
    """

    read: Callable[[Ids], Sequence[NDArray[Any]]]
    labels: NDArray[np.int64]
    kept: Kept
    input_shape: tuple[int, ...]
    size: int
    scale: float
    workers: int | None

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields a batch for each list of ids, in its order."""
        at_hand = self.kept.examples()  # what is added meanwhile was planned to be read
        wanted = [each for chunk in chunks for each in chunk.tolist() if each not in at_hand]
        missing = np.array(wanted, dtype=np.int64)
        workers = choose_workers(self.workers, len(missing))
        groups = grouped(missing, size=self.size, workers=workers)
        found = self._one_by_one(read_ahead(self.read, groups, workers=workers))
        for chunk in chunks:
            inputs = torch.empty((len(chunk), *self.input_shape), dtype=torch.float32)
            rows = inputs.numpy()
            for row, example in zip(rows, chunk.tolist(), strict=True):
                content = self.kept[example] if example in at_hand else next(found)
                if content.shape != self.input_shape:
                    raise DatasetError(
                        f"example {example} has shape {content.shape} now, it had "
                        f"{self.input_shape}: the data changed since they were looked at"
                    )
                row[...] = content
            if self.scale != 1:
                inputs.div_(self.scale)
            ids = torch.from_numpy(chunk.astype(np.int64))
            yield Batch(ids, inputs, torch.from_numpy(self.labels[chunk]))

    def _one_by_one(
        self, found: Iterable[tuple[Ids, Sequence[NDArray[Any]]]]
    ) -> Iterator[NDArray[Any]]:
        for group, inputs in found:
            for example, content in zip(group.tolist(), inputs, strict=True):
                self.kept.add(example, content)
                yield content


def check_ids(ids: Ids, *, name: str, count: int) -> None:
    """Raises `DatasetError` where there is no example with such an id."""
    if len(ids) > 0 and not 0 <= ids.min() <= ids.max() < count:
        raise DatasetError(
            f"dataset {name!r} has example ids from 0 to {count - 1}, "
            f"asked for {ids.min()} to {ids.max()}"
        )


@dataclass(frozen=True)
class _Raised:
    message: str


class _Groups(TorchDataset[Any], Generic[T]):
    """What a `DataLoader` takes for a dataset: an index is a group of ids."""

    def __init__(self, read: Callable[[Ids], T]) -> None:
        self.read = read

    def __getitem__(self, group: Any) -> T | _Raised:
        try:
            return self.read(group)
        except DatasetError as error:
            return _Raised(str(error))


def _as_it_is(part: T) -> T:
    return part


def _begin_worker(_: int) -> None:
    # An interruption is the main process's to handle: it stops the workers.  One that ends in the
    # middle of what it writes leaves the main process waiting for the rest.
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    # torch's loop sees that the main process is gone, but then waits for ever for what it read
    # to be taken out of a full pipe.  The sentinel tells at once, unless another process inherited
    # its other end: then the parent's id tells.
    main = multiprocessing.parent_process()
    sentinels = [] if main is None else [main.sentinel]
    while os.getppid() == parent and not wait(sentinels, timeout=PARENT_SECONDS):
        pass
    os._exit(1)


def _start(
    read: Callable[[Ids], T], groups: Sequence[Ids], *, workers: int
) -> Iterator[T | _Raised]:
    # More workers than processors may be asked for; and Python warns of a fork where there are
    # threads, as torch starts them: its workers run no operation of several threads.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*worker processes in total")
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork")
        loader = DataLoader(
            _Groups(read),
            batch_size=None,
            sampler=groups,  # any iterable of indices will do
            collate_fn=_as_it_is,
            num_workers=min(workers, len(groups)),
            prefetch_factor=GROUPS_AHEAD,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # the global one is the caller's
        )
        return iter(loader)
