"""Runs one batch of a job."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Watch
from gibbon.records.outcomes import Outcome, OutcomeMeta
from gibbon.runner.execute.jobs import Job
from gibbon.runner.execute.scorer import Scorer
from gibbon.runner.failures.boundary import Attempt, boundary
from gibbon.runner.job_results.job_result import JobResult
from gibbon.runner.job_results.meter import Meter
from gibbon.runner.job_results.outcome_arrays import judged_outcome
from gibbon.runner.plan.planned import Cell, PlannedAttack
from gibbon.runner.plan.selection import read_batch
from gibbon.verify.answers import clean_answers
from gibbon.verify.guard import Guarded, guarding
from gibbon.verify.judge import Judged, judge, judge_clean, unattacked
from gibbon.verify.proposal import propose

NO_EARLIER_OUTCOME = (
    "what succeeds unattacked, or at a smaller epsilon, is carried over to this one: that failed"
)


@dataclass(frozen=True)
class BatchTask:
    """A batch of a job, to be tried once; ``result`` holds the failures of earlier batches."""

    job: Job
    given: Batch
    device: torch.device
    scorer: Scorer
    attempt: Attempt
    result: JobResult


def run_batch(task: BatchTask) -> None:
    """Adds the outcome of a batch to the task's result, for every cell that has not failed."""
    job, result = task.job, task.result
    batch = task.given.to(task.device)
    live = [cell for cell in job.cells if cell.digest not in result.failures]
    attacked = [cell for cell in live if cell.attack is not None]
    watch = None
    if job.attack is not None and attacked:
        watch = _attack(task, job.attack, batch, attacked)
        if watch is None:  # the attack may have changed the inputs
            batch = read_batch(job.experiment.dataset, task.given.ids.cpu().numpy())
            batch = batch.to(task.device)
    for cell in live:
        if cell.attack is None:
            with boundary(partial(result.fail, [cell]), task.attempt):
                result.outcomes[cell.digest] = _unattacked(cell, batch, watch)


def _attack(
    task: BatchTask, planned: PlannedAttack, batch: Batch, cells: Sequence[Cell]
) -> Watch | None:
    """Adds the outcomes of the attacked cells, and returns the watch; None if all cells failed.

    Outcomes are added only after the guard has found inputs and model unchanged.
    """
    job, result = task.job, task.result
    outcomes: dict[str, Outcome] = {}

    def fail_all(error: BaseException) -> None:
        outcomes.clear()
        result.fail(cells, error)

    seed = derive_key(planned.stream_key, int(task.given.ids[0]))
    guard = guarding(
        job.source.classifier, batch, seed=seed, room=task.attempt.room, attack=planned.attack
    )
    watch: Watch | None = None
    with boundary(fail_all, task.attempt), guard as guarded:
        watch = guarded.watch
        outcomes.update(_attacked(task, planned, guarded, batch, cells))
    if not outcomes or watch is None:
        return None
    first = outcomes.get(cells[0].digest)  # shared passes are counted for it
    if first is not None and watch.outputs is not None and job.unattacked:
        # The attack's first pass gave the clean prediction: it is counted for the unattacked cell.
        passes = first.meta.forward_passes - task.attempt.count
        meta = first.meta.model_copy(update={"forward_passes": passes})
        outcomes[cells[0].digest] = replace(first, meta=meta)
    result.outcomes.update(
        (digest, each) for digest, each in outcomes.items() if digest not in result.failures
    )
    return watch


def _attacked(
    task: BatchTask, planned: PlannedAttack, guarded: Guarded, batch: Batch, cells: Sequence[Cell]
) -> dict[str, Outcome]:
    """Returns the outcome of each cell by digest; a cell that raises is marked as failed.

    If successes are carried in the batch, each cell takes over the candidates that the one before
    it misclassified.  The first cell takes over the clean mistakes, unless the job omits them.
    """
    source, watch, result = task.job.source.classifier, guarded.watch, task.result
    streams = ExampleStreams.derive(planned.stream_key, batch.ids)
    threats = [threat for cell in cells if (threat := cell.threat) is not None]
    meter = Meter.start(source)
    seen = planned.seen(source, guarded.batch.inputs)
    proposals = propose(planned.attack, seen, guarded.batch, threats=threats, streams=streams)
    carried, before = planned.carries_in_batch, None
    found: dict[str, Outcome] = {}
    for cell, threat in zip(cells, threats, strict=True):
        if cell is cells[0] or not planned.shares_work:
            # One draw of a random model decides nothing.
            reach = planned.reach(threat) if source.draws.count == 1 else -math.inf
            watch.begin(batch.labels, threat, bounds=source.bounds, reach=reach)
        proposed = next(proposals)
        with boundary(partial(result.fail, [cell]), task.attempt):
            if carried and any(each.digest in result.failures for each in cells):
                raise AttackError(NO_EARLIER_OUTCOME)
            if carried and before is None and task.job.follows is None:
                before = judge_clean(source, batch, watch=watch)
            # Other epsilons' candidates are no part of a path that all of them share.
            with source.off_path() if planned.shares_work else nullcontext():
                judged = judge(
                    source,
                    batch,
                    proposed=proposed,
                    threat=threat,
                    ask_source=cell.asks_source,
                    watch=watch,
                    before=before,
                )
            before = judged if carried else None
            found[cell.digest] = _outcome(task, cell, batch, judged, watch, meter.spent())
        meter = Meter.start(source)
    return found


def _outcome(
    task: BatchTask, cell: Cell, batch: Batch, judged: Judged, watch: Watch, spent: OutcomeMeta
) -> Outcome:
    """Returns the outcome of an attacked cell, with the answers that the scorer gives now."""
    source = cell.source.digest if cell.asks_source else None
    found = judged_outcome(batch, judged, path=watch.path, source=source, meta=spent)
    scores = task.scorer.score(cell, replace(batch, inputs=judged.candidates), task.attempt)
    answers = {**found.scores, **scores.answers}
    names = {each.digest: each.name for each in cell.targets if each.digest in answers}
    update = {"cell": str(cell), "targets": names, "target_errors": scores.errors}
    return replace(found, scores=answers, meta=spent.model_copy(update=update))


def _unattacked(cell: Cell, batch: Batch, watch: Watch | None) -> Outcome:
    """Returns the outcome at epsilon 0: the clean inputs are the candidates."""
    started, source, count = time.perf_counter(), cell.source, len(batch.labels)
    clean = clean_answers(source.classifier, batch, watch=watch)
    spent, names = time.perf_counter() - started, {source.digest: source.name}
    made = count * source.classifier.draws.count
    meta = OutcomeMeta(cell=str(cell), forward_passes=made, seconds=spent, targets=names)
    judged, digest, sure = unattacked(clean, batch), source.digest, clean.saturated
    return judged_outcome(batch, judged, path=None, source=digest, meta=meta, saturated=sure)
