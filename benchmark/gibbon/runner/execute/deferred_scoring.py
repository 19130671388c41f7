"""Targets in turns: where not all models of an experiment fit into memory at once.

Candidates are made on one source after the other and kept on disk; then each target comes in turn
and is scored on all that wait for it.  So a model is loaded twice, once as a source and once as a
target, or a few times more where the disk is too small for the candidates of all sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gibbon.models.memory import give_back
from gibbon.records.outcomes import OutcomeMeta, TargetOutcome
from gibbon.records.run import Failure
from gibbon.runner.execute.batch import described, target_outcome
from gibbon.runner.execute.boundary import BatchSizes, TooLargeError, boundary
from gibbon.runner.execute.job_result import Findings
from gibbon.runner.execute.jobs import CellWork, Job
from gibbon.runner.execute.run_job import execute, tell_failures
from gibbon.runner.plan.cell import Plan
from gibbon.runner.plan.loading import LoadedModel
from gibbon.runner.progress import Progress
from gibbon.runner.run_folder import CandidateFile, RunFolder
from gibbon.verify.answers import ask

DISK_SHARE = 0.5  # of what is free: the rest is for outcomes, and for others
FLOAT_BYTES = 4


def execute_all(
    jobs: list[Job], plan: Plan, folder: RunFolder, *, progress: Progress
) -> Iterator[Failure]:
    """Computes jobs, each with its models on the device, or in turns; yields the failures."""
    sizes = BatchSizes(plan.settings.batch_size)
    turns = _Turns(plan, folder, sizes, progress)
    for job in jobs:
        if plan.stage.fits(each.handle for each in job.models):
            yield from _with_models(job, job.models, plan, folder, sizes, progress)
        else:
            if not turns.have_room(job):
                turns.score()
            yield from turns.craft(job)
    turns.score()


def _with_models(
    job: Job,
    models: tuple[LoadedModel, ...],
    plan: Plan,
    folder: RunFolder,
    sizes: BatchSizes,
    progress: Progress,
    keeper: _Files | None = None,
) -> Iterator[Failure]:
    lost = Findings()
    with boundary(lambda error: lost.fail_all(job.all_cells, error), retry=False, count=1):
        plan.stage.show(model.handle for model in models)
    if lost.failures:  # a model could not be loaded again
        tell_failures(lost.failures.values(), progress)
        progress.advance(len(job.experiment.ids) * job.effort(keeper), doing=job.name)
        yield from lost.failures.values()
        return
    found = execute(job, plan, folder, sizes=sizes, progress=progress, keeper=keeper)
    yield from found.values()


@dataclass
class _Waiting:
    """A cell whose candidates wait on disk, and what was said of them so far."""

    job: Job
    work: CellWork
    answers: dict[str, TargetOutcome] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The cell's digest."""
        return self.work.cell.digest


class _Files:
    """Writes the candidates of a job's cells to their files."""

    def __init__(self, files: Mapping[str, CandidateFile]) -> None:
        self._files = files

    def keep(self, cell: str, candidates: Tensor) -> None:
        """Appends the candidates of a cell's next examples."""
        self._files[cell].append(candidates.detach().cpu().numpy())


class _Turns:
    """Makes candidates first, and has them scored by one model after the other."""

    def __init__(
        self, plan: Plan, folder: RunFolder, sizes: BatchSizes, progress: Progress
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._sizes = sizes
        self._progress = progress
        self._waiting: list[_Waiting] = []

    def have_room(self, job: Job) -> bool:
        """Says whether a job's candidates find room on the disk beside those that wait."""
        each = FLOAT_BYTES * len(job.experiment.ids) * math.prod(job.experiment.dataset.input_shape)
        wanted = each * sum(bool(work.others) for work in job.cells)
        return not self._waiting or wanted <= self._folder.room_for_candidates() * DISK_SHARE

    def craft(self, job: Job) -> Iterator[Failure]:
        """Makes the candidates of a job, and yields the failures."""
        shape = (len(job.experiment.ids), *job.experiment.dataset.input_shape)
        waiting = [_Waiting(job, work) for work in job.cells if work.others]
        failed = set()
        with ExitStack() as stack:
            files = {
                each.digest: stack.enter_context(
                    self._folder.writing_candidates(each.digest, shape=shape)
                )
                for each in waiting
            }
            for failure in _with_models(
                job,
                (job.source,),
                self._plan,
                self._folder,
                self._sizes,
                self._progress,
                _Files(files),
            ):
                failed.add((failure.attack, failure.epsilon))
                yield failure
        for each in waiting:
            if (each.work.cell.label, each.work.cell.epsilon) in failed:
                self._folder.drop_candidates(each.digest)
                self._progress.advance(self._effort(each), doing=job.name)
            else:
                self._waiting.append(each)

    def score(self) -> None:
        """Has all that wait scored; their candidates are removed."""
        targets = {other.digest: other for each in self._waiting for other in each.work.others}
        stage = self._plan.stage
        for target in sorted(targets.values(), key=lambda model: not stage.shows(model.handle)):
            mine = [
                each
                for each in self._waiting
                if any(other.digest == target.digest for other in each.work.others)
            ]
            self._score_on(target, mine)
        self._folder.drop_candidates(*(each.digest for each in self._waiting))
        self._waiting.clear()

    def _score_on(self, target: LoadedModel, waiting: list[_Waiting]) -> None:
        lost: list[BaseException] = []
        with boundary(lost.append, retry=False, count=1):
            self._plan.stage.show([target.handle])
        for each in waiting:
            if lost:
                each.errors[target.digest] = described(lost[0])
                self._progress.advance(len(each.job.experiment.ids), doing=each.job.name)
            else:
                self._score_cell(target, each)
            self._write(each)

    def _score_cell(self, target: LoadedModel, waiting: _Waiting) -> None:
        def note(error: BaseException) -> None:
            waiting.errors[target.digest] = described(error)

        candidates = self._folder.read_candidates(waiting.digest)
        size = self._sizes.of(waiting.job)
        sofar: TargetOutcome | None = None
        position = 0
        while position < len(candidates):
            chunk = torch.from_numpy(np.array(candidates[position : position + size]))
            try:
                with boundary(note, retry=self._sizes.may_halve(len(chunk)), count=len(chunk)):
                    answers = target_outcome(ask(target.classifier, chunk.to(self._plan.device)))
                    sofar = answers if sofar is None else sofar.then(answers)
            except TooLargeError:
                size = self._sizes.halve(waiting.job, tried=len(chunk))
                give_back(self._plan.device)
                continue
            position += len(chunk)
            self._progress.advance(len(chunk), doing=f"{waiting.job.name} on {target.name}")
        if sofar is not None and target.digest not in waiting.errors:
            waiting.answers[target.digest] = sofar

    def _write(self, waiting: _Waiting) -> None:
        """Adds to a cell's outcome what was said so far, in the order of the suite."""
        work = waiting.work
        source = work.cell.source.digest
        recorded = self._folder.read(waiting.digest)
        if recorded is None:
            return
        base = recorded.only(work.recorded.scores if work.recorded is not None else [source])
        said = {
            other.digest: other.name for other in work.others if other.digest in waiting.answers
        }
        more = replace(
            base,
            scores={digest: waiting.answers[digest] for digest in said},
            meta=OutcomeMeta(targets=said, target_errors=dict(waiting.errors)),
        )
        self._folder.write(waiting.digest, base.with_targets(more))

    def _effort(self, waiting: _Waiting) -> int:
        return len(waiting.job.experiment.ids) * len(waiting.work.others)
