"""Deferred scoring: candidates wait on disk, and each target is loaded once to score all of them.

So a model is loaded twice, as a source and as a target, or more often if the disk is too small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gibbon.core.errors import ProcessEndedError
from gibbon.records.outcomes import OutcomeMeta
from gibbon.records.run import Failure
from gibbon.runner.execute.jobs import Job, recorded_of
from gibbon.runner.execute.run_job import Execution, run_job
from gibbon.runner.execute.scorer import DeferScoring
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import boundary
from gibbon.runner.job_results.target_scores import TargetScores
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell
from gibbon.runner.run_progress.progress import Progress

DISK_SHARE = 0.5  # share of the free disk space for candidates


@dataclass(frozen=True)
class _Waiting:
    """A cell whose candidates are on disk, and the answers of targets so far."""

    job: Job
    cell: Cell
    scores: TargetScores = field(default_factory=TargetScores)

    @property
    def others(self) -> set[str]:
        return {other.digest for other in self.cell.others}


class ScoringQueue:
    """The cells whose candidates are on disk, to be scored on one target after the other."""

    def __init__(self, run: Execution) -> None:
        self._run = run
        self._waiting: list[_Waiting] = []

    def run(self, job: Job) -> Mapping[str, Failure]:
        """Runs a job on its source alone, adds its cells to the queue, and returns the failures."""
        folder, examples = self._run.folder, len(job.experiment.ids)
        waiting = [_Waiting(job, cell) for cell in job.cells if cell.others]
        shape = (examples, *job.experiment.dataset.input_shape)
        room = folder.room_for_candidates() * DISK_SHARE
        if self._waiting and np.float32().nbytes * math.prod(shape) * len(waiting) > room:
            self.score_all()
        writing = partial(folder.writing_candidates, shape=shape)
        with ExitStack() as stack:
            files = {
                each.cell.digest: stack.enter_context(writing(each.cell.digest)) for each in waiting
            }
            failed = run_job(job.on_source, self._run, DeferScoring(files))
        folder.drop_partial(job.digest)
        for each in waiting:
            if each.cell.digest in failed:
                folder.drop_candidates(each.cell.digest)
                self._run.progress.advance(examples * len(each.cell.others), doing=job.name)
            else:
                self._waiting.append(each)
        return failed

    def score_all(self) -> None:
        """Scores all candidates, adds the answers to the outcomes, and removes the candidates."""
        targets = {other.digest: other for each in self._waiting for other in each.cell.others}
        pool, progress = self._run.plan.pool, self._run.progress
        for target in sorted(targets.values(), key=lambda model: not pool.has_loaded(model.handle)):
            waiting = [each for each in self._waiting if target.digest in each.others]
            work = partial(self._scored, target, waiting)
            try:
                found = self._run.worker.run(work, progress, cells=len(waiting))
            except ProcessEndedError as error:
                found = [TargetScores() for _ in waiting]
                for scores in found:
                    scores.fail(target, error)
            for each, scores in zip(waiting, found, strict=True):
                each.scores.update(scores)
                self._write(each)
        self._run.folder.drop_candidates(*(each.cell.digest for each in self._waiting))
        self._waiting.clear()

    def _scored(
        self, target: LoadedModel, waiting: Sequence[_Waiting], progress: Progress
    ) -> list[TargetScores]:
        """Returns the answers of a target to the candidates of each cell, or its errors."""
        errors: list[BaseException] = []
        with boundary(errors.append):
            self._run.plan.pool.load([target.handle])
        found = [TargetScores() for _ in waiting]
        for each, scores in zip(waiting, found, strict=True):
            if errors:
                scores.fail(target, errors[0])
                progress.advance(len(each.job.experiment.ids), doing=each.job.name)
            else:
                self._score(each, target, scores, progress)
        return found

    def _score(
        self, waiting: _Waiting, target: LoadedModel, scores: TargetScores, progress: Progress
    ) -> None:
        points = self._run.folder.read_candidates(waiting.cell.digest)
        device, name = self._run.plan.device, f"{waiting.job.name} on {target.name}"
        for _, count in in_batches(
            len(points),
            waiting.job.batch_size,
            device=device,
            fetch=lambda parts: (waiting.job.experiment.batch_of(points, each) for each in parts),
            compute=lambda stream, attempt: scores.score(target, next(stream).to(device), attempt),
            note=lambda text: progress.note(f"{name}: {text}"),
        ):
            progress.advance(count, doing=name)

    def _write(self, waiting: _Waiting) -> None:
        """Adds the answers so far to a cell's outcome, in the order of the suite."""
        cell, folder, scores = waiting.cell, self._run.folder, waiting.scores
        recorded = recorded_of(cell, folder)
        if recorded is None:
            return
        answered = scores.answers.keys() - scores.errors.keys()
        names = {each.digest: each.name for each in cell.others if each.digest in answered}
        meta = OutcomeMeta(targets=names, target_errors=scores.errors)
        answers = {digest: scores.answers[digest] for digest in names}
        folder.write(cell.digest, recorded.with_targets(answers, meta))
