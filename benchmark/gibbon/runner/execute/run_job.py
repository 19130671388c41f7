"""Runs a job: attacks its examples in batches, saves intermediate results, writes the outcomes.

A job is saved from time to time, and when it is interrupted; the next run attacks the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gibbon.core.errors import AttackError, ProcessEndedError, RequestError
from gibbon.records.outcomes import Outcome, OutcomeMeta
from gibbon.records.run import Failure
from gibbon.runner.execute.batch import NO_EARLIER_OUTCOME
from gibbon.runner.execute.executor import ExamplesLeft, Executor
from gibbon.runner.execute.jobs import Job, recorded_of
from gibbon.runner.execute.scorer import Scorer
from gibbon.runner.failures.boundary import ENDINGS, boundary
from gibbon.runner.failures.raised_by import at_work, carry
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, Worker
from gibbon.runner.plan.planned import Plan
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress

NOT_REPEATED = (
    "the attack did not make the same candidates again, so that a new target can't be scored on "
    "them: run again with --fresh"
)


@dataclass(frozen=True)
class Execution:
    """The plan, the folder, the progress and the executor that all jobs of a run use."""

    plan: Plan
    folder: RunFolder
    progress: Progress
    executor: Executor
    # Gives the scorer of a job a context, such as a store of candidates.
    scorer: Callable[[Scorer], AbstractContextManager[Scorer]] = nullcontext
    worker: Worker = IN_THIS_PROCESS


def run_job(job: Job, run: Execution, scorer: Scorer) -> Mapping[str, Failure]:
    """Computes the cells of a job, writes their outcomes, and returns the failures by cell digest.

    A cell that raises is recorded as failed, and the others continue.  If the earlier outcome is
    missing, all cells fail; members of a list that follow a failed one are not reported again.
    """

    def work(progress: Progress) -> Mapping[str, Failure]:
        with run.scorer(scorer) as around:
            return _run_job(job, replace(run, progress=progress), around)

    worker = IN_THIS_PROCESS if run.executor.elsewhere else run.worker
    digests = [each.digest for each in job.cells if each.digest not in job.again]
    before = run.folder.contents(digests) if worker.separates else {}
    try:
        return worker.run(work, run.progress, cells=len(job.cells))
    except ProcessEndedError as error:
        run.folder.put_back(before)  # no cell is done and failed
        attack = None if job.attack is None else job.attack.attack
        carry(error, at_work(attack, job.source.name))
        result, total = JobResult(), len(job.experiment.ids) * job.work
        result.fail(job.cells, error)
        run.progress.advance(max(0, total - error.advanced), doing=job.name)
        return _reported(job, result, run)


def _run_job(job: Job, run: Execution, scorer: Scorer) -> Mapping[str, Failure]:
    earlier = run.folder.read(job.follows) if job.follows is not None else None
    result = JobResult()
    with boundary(partial(result.fail, job.cells)):
        if job.follows is not None and earlier is None:
            raise AttackError(NO_EARLIER_OUTCOME)
        if not run.executor.elsewhere:
            run.plan.pool.load(model.handle for model in job.models)
    if result.failures:
        run.progress.advance(len(job.experiment.ids) * job.work, doing=job.name)
        if earlier is None and job.cells[0].member:
            return {}
    else:
        ids = job.experiment.ids if earlier is None else job.experiment.ids[earlier.survivors]
        if scorer.resumes:
            digests = [each.digest for each in job.cells]
            result.outcomes = run.folder.read_partial(job.digest, digests)
        saved = next((each.example_id for each in result.outcomes.values()), ids[:0])
        _attack_all(job, ids[~np.isin(ids, saved)], result, run=run, scorer=scorer)
        result.put_in_order(ids)
        _write(job, earlier, result, run.folder)
        run.folder.drop_partial(job.digest)
        if result.failures:
            job.batch_size.reset()
    return _reported(job, result, run)


def _reported(job: Job, result: JobResult, run: Execution) -> Mapping[str, Failure]:
    for digest in job.again & result.failures.keys():  # it is recorded, and stays so
        del result.failures[digest]
    for each in result.failures.values():
        name = f"{each.dataset}, {each.model}, {each.attack} at epsilon {each.epsilon}"
        run.progress.failed(name, error=each.text)
    return result.failures


def _attack_all(
    job: Job, left: NDArray[np.int64], result: JobResult, *, run: Execution, scorer: Scorer
) -> None:
    """Attacks the examples in ``left``, batch by batch, unless all cells fail."""
    progress = run.progress
    batches = run.executor.results(
        ExamplesLeft(job, left, run.plan, scorer, lambda text: progress.note(f"{job.name}: {text}"))
    )
    work, undone, saved = job.work, len(left), time.monotonic()
    progress.advance((len(job.experiment.ids) - undone) * work, doing=job.name)
    try:
        with closing(batches):
            for found, count in batches:
                result.absorb(found)
                scorer.accept(found.outcomes)
                undone -= count
                progress.advance(count * work, doing=run.executor.doing(job))
                if len(result.failures) == len(job.cells):
                    break
                if scorer.resumes and time.monotonic() - saved > run.plan.settings.save_every:
                    _save(job, result, run.folder)
                    saved = time.monotonic()
    except (*ENDINGS, RequestError):
        if scorer.resumes:
            _save(job, result, run.folder)
        raise
    progress.advance(undone * work, doing=job.name)


def _save(job: Job, result: JobResult, folder: RunFolder) -> None:
    """Saves the result so far, unless a cell failed or answers of the source are missing."""
    answered = all(outcome.scores for outcome in result.outcomes.values())
    if result.outcomes and not result.failures and answered:
        folder.write_partial(job.digest, result.outcomes)


def _write(job: Job, earlier: Outcome | None, result: JobResult, folder: RunFolder) -> None:
    """Writes the outcomes of the cells that did not fail.

    The first attacked cell, for which shared passes are counted, is written after the others: if
    the run is killed between two cells, the next run counts these passes for the same cell.
    """
    for cell in reversed(job.cells):
        outcome = result.outcomes.pop(cell.digest, None)
        if cell.digest in job.again:
            continue
        if earlier is not None and cell.digest not in result.failures:
            meta = OutcomeMeta(cell=str(cell), targets={cell.source.digest: cell.source.name})
            outcome = earlier.updated(outcome, member=cell.member, nothing=meta)
        if outcome is None:
            continue
        recorded = None if cell.asks_source else recorded_of(cell, folder)
        if recorded is None:
            folder.write(cell.digest, outcome)
        elif recorded.has_candidates_of(outcome):
            folder.write(cell.digest, recorded.with_targets(outcome.scores, outcome.meta))
        else:
            result.fail([cell], AttackError(NOT_REPEATED))
