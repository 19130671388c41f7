"""The interface of executors, which attack the examples of a job in one shard or in several.

A shard is some of the examples that a job has left.  Its result is a record: outcomes and failures.
The caller joins the results, and nobody else writes into the run's folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.scorer import Scorer
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.plan.planned import Plan


@dataclass(frozen=True)
class ExamplesLeft:
    """The examples that a job has left, int64 ids of shape (N,), and what attacking them needs."""

    job: Job
    ids: NDArray[np.int64]
    plan: Plan
    scorer: Scorer
    note: Callable[[str], None]


class ShardResult(NamedTuple):
    """The result of a shard, or of a part of it, and its number of examples."""

    result: JobResult
    examples: int


class Executor(ABC):
    """Attacks the examples of a job, wherever that is."""

    elsewhere: bool  # whether that is in other processes, which load the models by themselves

    @abstractmethod
    def doing(self, job: Job) -> str:
        """Returns what is done at a job now, for the progress."""

    @abstractmethod
    def results(self, left: ExamplesLeft) -> Generator[ShardResult]:
        """Yields results until each example is in one of them; shards may come in any order.

        The batches of a shard come in the order of their examples, and if ``left.scorer`` does not
        resume, all examples do.  A cell that failed in one result is not needed in later ones.
        """
