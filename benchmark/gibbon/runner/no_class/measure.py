"""Computes a model's answers to inputs without a class, and stores them.

Answers are saved from time to time, and when the run is interrupted; the next run computes the
rest.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.attacks.toolkit.fooling import fooling_images
from gibbon.core.errors import ProcessEndedError
from gibbon.core.files import remove_file
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.random_draws import row_numbers
from gibbon.models.votes import votes
from gibbon.records.no_class_answers import (
    AS_DRAWN,
    NoClassAnswers,
    NoClassMeta,
    answers_file,
    read_answers,
    write_answers,
)
from gibbon.records.run import Failure
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import ENDINGS, Attempt, boundary, described, storable
from gibbon.runner.failures.raised_by import at_work, raised_by
from gibbon.runner.job_results.meter import Meter
from gibbon.runner.no_class.plan_no_class import PlannedAnswers, plan_answers
from gibbon.runner.own_processes.worker import Worker
from gibbon.runner.plan.planned import Plan
from gibbon.runner.plan.selection import read_batches
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress
from gibbon.specs.suite import FoolingSpec

OnError = Callable[[BaseException], None]

AS_THEY_ARE = "inputs without a class"  # purposes of the draws of a random model
STEPPING = "steps of fooling images"
AFTER_A_STEP = "fooling images"


def missing_answers(plan: Plan, folder: RunFolder) -> list[PlannedAnswers]:
    """Returns the answers of a plan that are not stored, each digest once."""
    wanted = {each.digest: each for each in reversed([*plan_answers(plan)])}
    return [
        each
        for each in reversed(wanted.values())
        if (stored := read_answers(folder.path, each.digest)) is None
        or not stored.covers(each.experiment.ids)
    ]


def measure_no_class(
    missing: Sequence[PlannedAnswers],
    plan: Plan,
    folder: RunFolder,
    *,
    progress: Progress,
    worker: Worker,
) -> list[Failure]:
    """Computes the answers that are missing, and returns the failures."""
    failures = []
    for planned in missing:
        try:
            failure = worker.run(_AnswersTask(planned, plan, folder).run, progress)
        except ProcessEndedError as error:
            ids, found = planned.experiment.ids, read_answers(folder.path, planned.digest)
            if found is not None and found.covers(ids):  # nothing is done and failed
                remove_file(answers_file(folder.path, planned.digest))
            party = at_work(None, planned.source.name)
            failure = planned.failure(described(error), raised_by=party)
            total = len(planned.experiment.ids) * planned.work
            progress.advance(max(0, total - error.advanced), doing=str(planned))
        if failure is not None:
            progress.failed(str(planned), error=failure.text)
            failures.append(failure)
    return failures


@dataclass(frozen=True)
class _AnswersTask:
    """Computes the answers of one model, in whatever process."""

    planned: PlannedAnswers
    plan: Plan
    folder: RunFolder

    def run(self, progress: Progress) -> Failure | None:
        """Computes what is missing, stores it, and returns the failure, if there is one."""
        planned, failed = self.planned, list[Failure]()

        def fail(error: BaseException) -> None:
            trace = storable("".join(traceback.format_exception(error)))
            party = raised_by(error)
            failed.append(planned.failure(described(error), traceback=trace, raised_by=party))

        with boundary(fail):
            self.plan.pool.load([planned.source.handle])
        if failed:
            progress.advance(len(planned.experiment.ids) * planned.work, doing=str(planned))
        else:
            self._compute(progress, failed, fail)
        return failed[0] if failed else None

    def _compute(self, progress: Progress, failed: list[Failure], fail: OnError) -> None:
        planned, ids = self.planned, self.planned.experiment.ids
        found = read_answers(self.folder.path, planned.digest)
        left = ids if found is None else ids[~np.isin(ids, found.example_id)]
        progress.advance((len(ids) - len(left)) * planned.work, doing=str(planned))
        undone, saved = len(left), time.monotonic()

        def compute(stream: Iterator[Batch], attempt: Attempt) -> NoClassAnswers | None:
            answers: list[NoClassAnswers] = []
            with boundary(fail, attempt):
                answers.append(self._answers(next(stream)))
            return answers[0] if answers else None

        batches = in_batches(
            len(left),
            planned.experiment.batch_size(planned.source, None),
            device=self.plan.device,
            fetch=lambda parts: read_batches(
                planned.experiment.dataset, [left[part] for part in parts]
            ),
            compute=compute,
            note=lambda text: progress.note(f"{planned}: {text}"),
        )
        try:
            with closing(batches):
                for more, count in batches:
                    if more is None:
                        break
                    found = more if found is None else found.then(more)
                    undone -= count
                    progress.advance(count * planned.work, doing=str(planned))
                    if time.monotonic() - saved > self.plan.settings.save_every:
                        write_answers(self.folder.path, found)
                        saved = time.monotonic()
        except ENDINGS:
            if found is not None:
                write_answers(self.folder.path, found)
            raise
        progress.advance(undone * planned.work, doing=str(planned))
        if found is not None and not failed:
            write_answers(self.folder.path, found)

    def _answers(self, given: Batch) -> NoClassAnswers:
        """Returns the model's answers to a batch."""
        planned, batch = self.planned, given.to(self.plan.device)
        source, meter = planned.source.classifier, Meter.start(planned.source.classifier)
        if planned.fooling is None:
            parts = [_answered(source, batch, batch.inputs, purpose=AS_THEY_ARE)]
        else:
            parts = [
                _answered(source, batch, points, purpose=AFTER_A_STEP, wanted=label)
                for label, points in enumerate(_stepped(source, batch, planned.fooling))
            ]
        found = parts[0]
        for part in parts[1:]:
            found = found.then(part)
        spent = meter.spent()
        meta = NoClassMeta(
            cell=str(planned),
            digest=planned.digest,
            forward_passes=spent.forward_passes,
            backward_passes=spent.backward_passes,
            seconds=spent.seconds,
        )
        return NoClassAnswers(**{**vars(found), "meta": meta})


def _stepped(source: Classifier, batch: Batch, fooling: FoolingSpec) -> Iterator[Tensor]:
    """Yields fooling images, class by class; the steps of a random model are made on one draw."""
    images = fooling_images(
        source, batch.inputs, step=float(fooling.step), direction=fooling.direction
    )
    streams = source.draws.streams(batch.ids, STEPPING)
    with row_numbers(streams, seed=0) if source.draws.count > 1 else nullcontext():
        first = next(images)  # makes the only forward pass
    yield first
    yield from images


def _answered(
    source: Classifier, batch: Batch, points: Tensor, *, purpose: str, wanted: int = AS_DRAWN
) -> NoClassAnswers:
    """Returns the model's answers to points of a batch's examples, over its draws."""
    nobody = torch.zeros_like(batch.labels)  # a class for each, of which nothing is read
    streams = source.draws.streams(batch.ids, purpose)
    drawn = votes(source, points, labels=nobody, streams=streams).drawn  # (draws, N, K)
    draws, count = drawn.shape[:2]
    flat = drawn.flatten(0, 1)
    ids: NDArray[np.int64] = batch.ids.cpu().numpy()
    return NoClassAnswers(
        example_id=np.tile(ids, draws),
        wanted=np.full(draws * count, wanted, dtype=np.int32),
        draw=np.repeat(np.arange(draws, dtype=np.int32), count),
        predicted=flat.argmax(1).cpu().numpy().astype(np.int32),
        confidence=source.outputs.confidence(flat).cpu().numpy().astype(np.float32),
    )
