"""A worker: computes shards of a run in a process of its own, whichever executor started it."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import ProcessEndedError
from gibbon.core.global_state import calculating
from gibbon.core.package_digest import package_digest
from gibbon.datasets.base import Batch
from gibbon.models.memory import is_shortage
from gibbon.models.reached_values import watching_values
from gibbon.records.outcomes import Outcome
from gibbon.runner.execute.executor import ExamplesLeft
from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.scorer import ALL, Scorer
from gibbon.runner.executors.in_process import IN_PROCESS
from gibbon.runner.executors.part_plan import AnotherRunError, PartPlan
from gibbon.runner.executors.protocol import (
    Raised,
    Ready,
    Refused,
    ShardReply,
    ShardTask,
    WorkerReply,
    WorkerRequest,
)
from gibbon.runner.failures.boundary import Attempt, boundary, described, storable
from gibbon.runner.failures.raised_by import at_work, carry, raised_by
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.job_results.target_scores import TargetScores, scores_of
from gibbon.runner.own_processes.process_limits import limits_of
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, InOwnProcesses
from gibbon.runner.plan.planned import Cell
from gibbon.runner.run_progress.progress import SILENT, Progress


class ReturningScorer(Scorer):
    """Scores candidates unless that is deferred, and keeps those that are to be sent back.

    Args:
        keep: number of candidates by digest of the cell, as in `ShardTask`.
        deferred: whether targets are scored later.
    """

    def __init__(self, keep: Mapping[str, int], *, deferred: bool) -> None:
        self.resumes = not deferred
        self._keep = keep
        self._batch: dict[str, NDArray[np.float32]] = {}
        self._kept: defaultdict[str, list[NDArray[np.float32]]] = defaultdict(list)

    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns the answers of the targets; none if that is deferred."""
        most = self._keep.get(cell.digest, 0)
        if most:
            inputs = candidates.inputs[: min(most, len(candidates.inputs))]
            self._batch[cell.digest] = inputs.detach().cpu().clone().numpy()
        return scores_of(cell.others, candidates, attempt) if self.resumes else TargetScores()

    def accept(self, cells: Mapping[str, Outcome]) -> None:
        """Keeps the candidates of a batch, if they are the first or all are kept."""
        for digest in self._batch.keys() & cells.keys():
            if self._keep[digest] == ALL or digest not in self._kept:
                self._kept[digest].append(self._batch[digest])
        self._batch.clear()

    @property
    def kept(self) -> dict[str, NDArray[np.float32]]:
        """The candidates that are kept, by digest of their cell."""
        return {digest: np.concatenate(parts) for digest, parts in self._kept.items()}


class ShardWorker:
    """Computes shards in this process, one after another.

    Args:
        request: the run.
    """

    def __init__(self, request: WorkerRequest) -> None:
        self._request = request
        self._stack = ExitStack()
        self._plan: PartPlan | None = None

    def begin(self) -> Ready | Refused:
        """Returns whether this process can compute the run's shards."""
        request = self._request
        if package_digest() != request.code:
            return other_version(request.code)
        _go_to(request)
        if request.threads is not None:
            torch.set_num_threads(request.threads)
        self._stack.enter_context(calculating())
        self._stack.enter_context(watching_values())
        self._stack.enter_context(warnings.catch_warnings())
        return Ready()

    def run(self, task: ShardTask) -> WorkerReply:
        """Returns the reply to a task, whatever is raised."""
        try:
            return IN_THIS_PROCESS.run(lambda _: self._reply(task), SILENT)
        except AnotherRunError as error:
            return Refused(str(error))
        except BaseException as error:  # noqa: BLE001  the run retries, or records it
            trace = storable("".join(traceback.format_exception(error)))
            return Raised(described(error), trace, raised_by(error), is_shortage(error))

    def _reply(self, task: ShardTask) -> ShardReply:
        if self._plan is None:
            self._plan = PartPlan(self._request)
        plan, job = self._plan, self._plan.job(task)

        def work(_: Progress) -> ShardReply:
            return _computed(job, task, plan)

        limits = limits_of(self._request.suite, self._request.settings)
        if limits is None:
            return work(SILENT)
        try:
            return InOwnProcesses(limits).run(work, SILENT, cells=len(job.cells))
        except ProcessEndedError as error:
            attack = None if job.attack is None else job.attack.attack
            carry(error, at_work(attack, job.source.name))
            result = JobResult()
            result.fail(job.cells, error)
            return ShardReply(result)


def other_version(code: str) -> Refused:
    """Returns the refusal of a run that is computed by other code of Gibbon, of this digest."""
    return Refused(
        f"it has another version of Gibbon (code {package_digest()[:12]}) than the run "
        f"({code[:12]})"
    )


def _computed(job: Job, task: ShardTask, plan: PartPlan) -> ShardReply:
    """Returns the result of a job in this process; its models are loaded first."""
    result, notes = JobResult(), list[str]()
    scorer = ReturningScorer(task.keep, deferred=task.deferred)
    failed: list[BaseException] = []
    with boundary(failed.append):
        plan.pool.load(model.handle for model in job.models)
    if failed and is_shortage(failed[0]):
        raise failed[0]  # another worker may have the memory
    if failed:
        result.fail(job.cells, failed[0])
        return ShardReply(result)
    left = ExamplesLeft(job, task.ids, plan.plan(job), scorer, notes.append)
    for found, _ in IN_PROCESS.results(left):
        result.absorb(found)
        scorer.accept(found.outcomes)
        if len(result.failures) == len(job.cells):
            break
    return ShardReply(result, scorer.kept, tuple(notes), plan.in_memory)


def _go_to(request: WorkerRequest) -> None:
    """Changes to the run's folder and import path, as far as they exist here."""
    if Path(request.folder).is_dir():
        os.chdir(request.folder)
    sys.path.extend(each for each in request.path if each not in sys.path)
