"""Prefetches examples: by worker processes, in order, in bounded memory.

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
from gibbon.datasets.base import PIXEL_MAX, Batch, DatasetInfo

T = TypeVar("T")
Ids = NDArray[np.int64]

MOST_WORKERS = 8  # decoding feeds the model long before
FEWEST_FOR_WORKERS = 32  # below, starting processes takes longer than reading
LARGEST_GROUP = 32  # examples that a worker reads at a time
GROUP_BYTES = 4 << 20
GROUPS_AHEAD = 4  # a worker
KEPT_BYTES = 256 << 20
PARENT_SECONDS = 1.0  # between a worker's checks that the main process is alive


def read_ahead(
    read: Callable[[Ids], T], groups: Sequence[Ids], *, workers: int
) -> Iterator[tuple[Ids, T]]:
    """Yields each group of ids with the result of ``read``, in the order of the groups.

    Args:
        read: reads a group; must be picklable on systems that do not fork processes.
        groups: lists of example ids.
        workers: processes that read; none if 0.

    Raises `DatasetError` if ``read`` raises it, in this process or a worker, or a worker dies.
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
                "--decoders 0 reads in the main process"
            ) from error
        if isinstance(part, _Raised):
            raise DatasetError(part.message)
        yield group, part


def choose_workers(asked: int | None, count: int) -> int:
    """Returns the number of processes that read ``count`` examples; chosen if None."""
    if asked is not None:
        return asked if count else 0
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    worth = count >= FEWEST_FOR_WORKERS and (available or 1) > 1
    return min(available or 1, MOST_WORKERS) if worth else 0


def grouped(ids: Ids, *, size: int, workers: int) -> list[Ids]:
    """Returns the ids in groups that one worker reads at a time.

    ``size`` is the number of bytes of one example; 0 if unknown.

    >>> [len(group) for group in grouped(np.arange(100), size=3 << 20, workers=2)][:3]
    [1, 1, 1]
    >>> [len(group) for group in grouped(np.arange(100), size=784, workers=2)][:3]
    [13, 13, 13]
    """
    fitting = max(1, GROUP_BYTES // max(1, size))
    spread = -(-len(ids) // (GROUPS_AHEAD * max(1, workers)))
    step = max(1, min(LARGEST_GROUP, fitting, spread))
    return [ids[start : start + step] for start in range(0, len(ids), step)]


class ExampleCache:
    """A cache of examples in memory, as many as fit.

    The first examples stay: replacing the oldest would replace all of them in every pass over a
    dataset larger than the cache.  They lie in one block, since thousands of long-lived pieces
    between short-lived ones would fragment the memory to several times their size.

    Args:
        count: number of examples in the dataset.
        shape, dtype: of one of them.
    """

    def __init__(self, count: int, shape: tuple[int, ...], *, dtype: np.dtype[Any]) -> None:
        self.size = math.prod(shape) * dtype.itemsize
        self.scale = PIXEL_MAX if dtype == np.uint8 else 1.0
        room = min(count, KEPT_BYTES // max(1, self.size))
        self.holds_all = room == count
        self._block = np.empty((room, *shape), dtype)  # takes no memory until it is written to
        self._rows: dict[int, int] = {}

    def add(self, example: int, content: NDArray[Any]) -> None:
        """Keeps an example if there is room."""
        row = len(self._rows)
        fits = row < len(self._block) and content.shape == self._block.shape[1:]
        if fits and example not in self._rows:
            self._block[row] = content
            self._rows[example] = row

    def examples(self) -> set[int]:
        """Returns the ids of the examples kept."""
        return set(self._rows)

    def __getitem__(self, example: int) -> NDArray[Any]:
        content: NDArray[Any] = self._block[self._rows[example]]
        return content


@dataclass(frozen=True)
class Assembly:
    """Makes batches of examples that are kept in memory and of examples that are read.

    Args:
        read: returns the contents of a group of ids, an array each.
        info: describes the examples.
        kept: the examples in memory.
        workers: processes that read; chosen if None.
    """

    read: Callable[[Ids], Sequence[NDArray[Any]]]
    info: DatasetInfo
    kept: ExampleCache
    workers: int | None

    def batches(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        """Yields a batch for each list of ids, in its order.

        Raises `DatasetError` if there is no example with one of the ids, or ``read`` raises it.
        """
        for chunk in chunks:
            self.info.check_ids(chunk)
        return self._assembled(chunks)

    def _assembled(self, chunks: Sequence[Ids]) -> Generator[Batch, None, None]:
        at_hand = self.kept.examples()  # excludes examples that are added meanwhile
        wanted = [each for chunk in chunks for each in chunk.tolist() if each not in at_hand]
        missing = np.array(wanted, dtype=np.int64)
        workers = choose_workers(self.workers, len(missing))
        groups = grouped(missing, size=self.kept.size, workers=workers)
        found = self._one_by_one(read_ahead(self.read, groups, workers=workers))
        for chunk in chunks:
            inputs = torch.empty((len(chunk), *self.info.input_shape), dtype=torch.float32)
            rows = inputs.numpy()
            for row, example in zip(rows, chunk.tolist(), strict=True):
                content = self.kept[example] if example in at_hand else next(found)
                if content.shape != self.info.input_shape:
                    raise DatasetError(
                        f"example {example} has shape {content.shape} now, it had "
                        f"{self.info.input_shape}: the data changed since they were first read"
                    )
                row[...] = content
            if self.kept.scale != 1:
                inputs.div_(self.kept.scale)
            else:
                inputs.add_(0.0)  # -0 becomes 0, as in candidates
            ids = torch.from_numpy(chunk.astype(np.int64))
            yield Batch(ids, inputs, torch.from_numpy(self.info.labels[chunk]))

    def _one_by_one(
        self, found: Iterable[tuple[Ids, Sequence[NDArray[Any]]]]
    ) -> Iterator[NDArray[Any]]:
        for group, inputs in found:
            for example, content in zip(group.tolist(), inputs, strict=True):
                self.kept.add(example, content)
                yield content


@dataclass(frozen=True)
class _Raised:
    message: str


class _Groups(TorchDataset[Any], Generic[T]):
    """A torch dataset whose indices are groups of ids."""

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
    # torch's loop notices that the main process has ended, but then waits for ever for a full pipe
    # to be emptied.  The sentinel fires at once, unless another process inherited its other end:
    # then the parent's id changes.
    main = multiprocessing.parent_process()
    sentinels = [] if main is None else [main.sentinel]
    while os.getppid() == parent and not wait(sentinels, timeout=PARENT_SECONDS):
        pass
    os._exit(1)


def _start(
    read: Callable[[Ids], T], groups: Sequence[Ids], *, workers: int
) -> Iterator[T | _Raised]:
    # More workers than processors are allowed; and Python warns of a fork in a process with
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
