"""Messages between a run and its workers.

A worker gets a `WorkerRequest` once, and answers `Ready` or `Refused`.  Then it gets one
`ShardTask` after another, and answers each by a `ShardReply`, by `Raised` or by `Refused`.  All of
these can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.plan.planned import Supplied
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite


@dataclass(frozen=True)
class DataOfRun:
    """A dataset as the run opened it.

    Args:
        digest: digest of its content.
        data_digest: digest of its content and of the examples of the whole run.
        first: id of the first example of the run.
    """

    digest: str
    data_digest: str
    first: int


@dataclass(frozen=True)
class WorkerRequest:
    """The part of a run that is common to all shards.

    Args:
        suite: the suite.
        settings: those of the run, for the worker's device.
        supplied: objects in place of those that the suite names.
        where: name of the suite in error messages.
        code: digest of the code of Gibbon that the run is computed by.
        data: the datasets, by their names in the suite.
        folder: the current folder of the run, which relative paths start from.
        path: folders that the run imports modules from.
        threads: of the processor; those that torch chooses if None.
        sharing: workers that share the memory of one device.
    """

    suite: Suite
    settings: RunSettings
    supplied: Supplied
    where: str
    code: str
    data: Mapping[str, DataOfRun]
    folder: str
    path: tuple[str, ...]
    threads: int | None = None
    sharing: int = 1


@dataclass(frozen=True)
class CellOfTask:
    """A cell, by its digest, and the names of the targets to score.

    ``member`` is the position of a member of a list: the last one has the digest of the list.
    """

    digest: str
    member: int | None
    targets: tuple[str, ...]


@dataclass(frozen=True)
class ShardTask:
    """The examples of a shard, and the cells to compute on them.

    Args:
        dataset: name of the dataset in the suite.
        attack: label of the attack; None if the only cell is the unattacked one.
        cells: the cells.
        follows: digest of the earlier outcome that the job follows, if it follows one.
        models: digests of source and targets, by their names, the source first.
        ids: int64, shape (N,): the examples.
        deferred: whether targets are scored later.
        keep: number of candidates to send back, by digest of the cell: those of the first batch, at
            most so many; all if the number is `gibbon.runner.execute.scorer.ALL`.
        halvings: how often the batch size is halved, since workers ran out of memory.
    """

    dataset: str
    attack: str | None
    cells: tuple[CellOfTask, ...]
    follows: str | None
    models: Mapping[str, str]
    ids: NDArray[np.int64]
    deferred: bool
    keep: Mapping[str, int]
    halvings: int = 0

    @property
    def source(self) -> str:
        """The name of the model under attack."""
        return next(iter(self.models))


@dataclass(frozen=True)
class Ready:
    """A worker is ready for shards."""


@dataclass(frozen=True)
class Refused:
    """A worker computes nothing of this run, since it would compute something else."""

    reason: str


@dataclass(frozen=True)
class Raised:
    """A shard raised, outside of what fails a cell.

    Args:
        error: type and message of the exception.
        traceback: its traceback.
        party: whose code raised it.
        memory: whether memory ran out.
    """

    error: str
    traceback: str
    party: str
    memory: bool


@dataclass(frozen=True)
class Ended:
    """A worker ended; ``memory`` says whether that may be for want of memory."""

    reason: str
    memory: bool


@dataclass(frozen=True)
class ShardReply:
    """The result of a shard.

    Args:
        result: outcomes and failures.
        candidates: those that are kept, float32, shape (M, *input_shape), by digest of their cell.
        notes: sentences for the user.
        loaded: names of the models that the worker has on its device.
    """

    result: JobResult
    candidates: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loaded: frozenset[str] = frozenset()


WorkerReply = Ready | Refused | Raised | Ended | ShardReply
