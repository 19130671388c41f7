"""Runs one batch of a job."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.attacks.base import SharedWork
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Verdict
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier, Watch
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.runner.execute.boundary import boundary
from gibbon.runner.execute.job_result import Findings
from gibbon.runner.execute.jobs import CellWork, Job, _along
from gibbon.runner.gallery.select import Frame, pick
from gibbon.runner.plan.cell import PlannedAttack
from gibbon.runner.plan.loading import LoadedModel
from gibbon.verify.answers import Answers, ask, clean_answers
from gibbon.verify.guard import Guarded, guarding
from gibbon.verify.judge import Judged, judge, judge_clean
from gibbon.verify.proposal import propose

Scalar = TypeVar("Scalar", bound=np.generic)

NOTHING_TO_FOLLOW = (
    "what succeeds unattacked, or at a smaller epsilon, is carried over to this one: that failed"
)


@dataclass(frozen=True)
class _Picker:
    """Of which cells of a job examples are picked, and what is recorded of the clean inputs."""

    frame: Frame
    digests: frozenset[str]
    clean: Outcome | None


def _run_batch(
    job: Job,
    given: Batch,
    device: torch.device,
    found: Findings,
    *,
    retry: bool,
    keep: bool,
    room: int,
    picker: _Picker | None = None,
) -> None:
    """Puts what came of one batch, for every cell of a job that has not failed, into ``found``.

    ``retry`` says that the batch may be tried again by halves; ``keep`` that candidates are kept
    and no other model is asked.  A full batch has ``room`` examples.  ``picker``, where there
    is one, says of which cells examples are picked for a gallery.
    """
    source = job.source.classifier
    batch, count = given.to(device), len(given.ids)
    live = [work for work in job.cells if work.cell.digest not in found.failures]
    watch: Watch | None = None
    shown: dict[str, Judged] = {}
    free = False
    if job.attack is not None and live:
        # Chunks count only once the attack is known to have left inputs and model alone.
        chunks: dict[str, Outcome] = {}

        def fail_all(error: BaseException) -> None:
            chunks.clear()
            found.fail_all(live, error)

        first_id = int(given.ids[0])
        seed = derive_key(job.attack.stream_key, first_id)
        with (
            boundary(fail_all, retry=retry, count=count),
            guarding(source, batch, seed=seed, room=room) as guarded,
        ):
            watch = guarded.watch
            for work, chunk, judged in _attack_batch(
                job.attack,
                live,
                guarded,
                batch,
                found,
                retry=retry,
                keep=keep,
                chained=job.chain is not None,
            ):
                chunks[work.cell.digest] = chunk
                if picker is not None and work.cell.digest in picker.digests:
                    shown[work.cell.digest] = judged
        intact = bool(chunks)
        free = intact and watch is not None and watch.outputs is not None
        if not intact:  # the attack may have spoilt them
            watch = None
            batch = job.experiment.dataset.batch(given.ids.cpu().numpy()).to(device)
        first = live[0].cell.digest  # where the shared passes are booked
        if free and job.clean is not None and first in chunks:
            chunks[first] = _fewer_forward(chunks[first], count)
        for work in live:
            if work.cell.digest in chunks and work.cell.digest not in found.failures:
                found.outcomes[work.cell.digest] = chunks[work.cell.digest]
    if job.clean is not None and job.clean.cell.digest not in found.failures:
        clean = job.clean.cell
        with boundary(lambda error: found.fail(clean, error), retry=retry, count=count):
            found.outcomes[clean.digest] = _clean_batch(job.clean, batch, watch)
    if picker is not None and shown:
        with boundary(lambda _: None, retry=False, count=count):  # without pictures, then
            _pick(picker, job, batch, shown, found)


def _pick(
    picker: _Picker, job: Job, batch: Batch, judged: Mapping[str, Judged], found: Findings
) -> None:
    """Picks examples of the cells that are to be shown; the model is not asked again."""
    rider = job.clean
    outcome = picker.clean if rider is None else found.outcomes.get(rider.cell.digest)
    if outcome is None or job.source.digest not in outcome.scores:
        return
    answers = outcome.scores[job.source.digest]
    places = np.searchsorted(outcome.example_id, _array(batch.ids, np.int64))
    clean = TargetOutcome(answers.predicted[places], answers.confidence[places])
    for digest in judged.keys() & found.outcomes.keys():
        picked = pick(picker.frame, batch, judged[digest], clean=clean)
        if picked is not None:
            found.pictures[digest] = picked


def _attack_batch(
    planned: PlannedAttack,
    works: list[CellWork],
    guarded: Guarded,
    batch: Batch,
    found: Findings,
    *,
    retry: bool,
    keep: bool,
    chained: bool,
) -> Iterator[tuple[CellWork, Outcome, Judged]]:
    """Yields what came of one batch, cell by cell; a cell that raises is marked as failed.

    Where the epsilons are carried along one direction, each cell takes over what the one before it
    misled, and the first one the clean mistakes; those of a ``chained`` job are left out already.
    """
    source = works[0].cell.source
    classifier = source.classifier
    streams = ExampleStreams.derive(planned.stream_key, batch.ids)
    threats = [threat for work in works if (threat := work.cell.threat) is not None]
    meter = _Meter(classifier)
    watch = guarded.watch
    proposals = propose(planned.attack, classifier, guarded.batch, threats=threats, streams=streams)
    before: Judged | None = None
    for work, threat in zip(works, threats, strict=True):
        if planned.attack.shares is SharedWork.NOTHING:
            watch.zero_gradient = None
        tries = next(proposals)
        cell = work.cell
        with boundary(
            lambda error, cell=cell: found.fail(cell, error),  # type: ignore[misc]
            retry=retry,
            count=len(batch.ids),
        ):
            if _along(planned) and any(each.cell.digest in found.failures for each in works):
                raise AttackError(NOTHING_TO_FOLLOW)
            if _along(planned) and before is None and not chained:
                before = judge_clean(classifier, batch, watch=watch)
            judged = judge(
                classifier,
                batch,
                proposed=tries,
                threat=threat,
                ask_source=work.asks_source,
                watch=watch,
                before=before,
            )
            before = judged if _along(planned) else None
            spent = meter.read()
            others = () if keep else work.others
            scores, errors = _score_targets(work, judged, others, retry=retry)
            if keep and work.others:
                found.candidates[cell.digest] = judged.candidates
            yield work, _chunk(work, batch, judged, watch, scores, errors, spent), judged
        meter.skip()


def _score_targets(
    work: CellWork, judged: Judged, others: Sequence[LoadedModel], *, retry: bool
) -> tuple[dict[str, TargetOutcome], dict[str, str]]:
    scores: dict[str, TargetOutcome] = {}
    errors: dict[str, str] = {}
    if judged.answers is not None and work.asks_source:
        scores[work.cell.source.digest] = target_outcome(judged.answers)
    for target in others:

        def note(error: BaseException, digest: str = target.digest) -> None:
            errors[digest] = described(error)

        with boundary(note, retry=retry, count=len(judged.candidates)):
            scores[target.digest] = target_outcome(ask(target.classifier, judged.candidates))
    return scores, errors


def described(error: BaseException) -> str:
    """Returns what is recorded of an exception of a model that was scored."""
    return f"{type(error).__name__}: {error}"


def _chunk(
    work: CellWork,
    batch: Batch,
    judged: Judged,
    watch: Watch,
    scores: Mapping[str, TargetOutcome],
    errors: Mapping[str, str],
    spent: _Spent,
) -> Outcome:
    return Outcome(
        example_id=_array(batch.ids, np.int64),
        label=_array(batch.labels, np.int32),
        verdict=_array(judged.verdict, np.int8),
        distance=_array(judged.distance, np.float32),
        any_misclassified=_array(judged.any_misled, np.bool_),
        saturated=None,
        zero_gradient=_maybe(watch.zero_gradient, np.bool_),
        scores=scores,
        meta=_meta(work, scores, errors, spent),
        nearest=_maybe(judged.nearest, np.float32),
        misled_by=_maybe(judged.misled_by, np.int16),
    )


def _clean_batch(work: CellWork, batch: Batch, watch: Watch | None) -> Outcome:
    started = time.perf_counter()
    source = work.cell.source
    clean = clean_answers(source.classifier, batch, watch=watch)
    count = len(batch.labels)
    answers = target_outcome(clean.answers)
    labels = _array(batch.labels, np.int32)
    spent = _Spent(count, 0, time.perf_counter() - started)
    return Outcome(
        example_id=_array(batch.ids, np.int64),
        label=labels,
        verdict=np.full(count, Verdict.VALID, dtype=np.int8),
        distance=np.zeros(count, dtype=np.float32),
        any_misclassified=answers.predicted != labels,
        saturated=_array(clean.saturated, np.bool_),
        zero_gradient=None,
        scores={source.digest: answers},
        meta=_meta(work, [source.digest], {}, spent),
    )


def _meta(
    work: CellWork, answered: Collection[str], errors: Mapping[str, str], spent: _Spent
) -> OutcomeMeta:
    return OutcomeMeta(
        cell=str(work.cell),
        forward_passes=spent.forward,
        backward_passes=spent.backward,
        seconds=spent.seconds,
        targets={each.digest: each.name for each in work.targets if each.digest in answered},
        target_errors=dict(errors),
    )


def _fewer_forward(chunk: Outcome, count: int) -> Outcome:
    """The clean prediction came with the attack's first pass: it is counted there, not here."""
    passes = chunk.meta.forward_passes - count
    meta = chunk.meta.model_copy(update={"forward_passes": passes})
    return replace(chunk, meta=meta)


@dataclass(frozen=True)
class _Spent:
    forward: int
    backward: int
    seconds: float


class _Meter:
    """Reads what was spent on a classifier since the last reading."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.skip()

    def skip(self) -> None:
        passes = self.classifier.passes
        self.before = _Spent(passes.forward, passes.backward, time.perf_counter())

    def read(self) -> _Spent:
        before = self.before
        self.skip()
        now = self.before
        return _Spent(
            now.forward - before.forward,
            now.backward - before.backward,
            now.seconds - before.seconds,
        )


def target_outcome(answers: Answers) -> TargetOutcome:
    """Returns a model's answers as they are stored."""
    return TargetOutcome(
        _array(answers.predicted, np.int32), _array(answers.confidence, np.float32)
    )


def _array(values: Tensor, kind: type[Scalar]) -> NDArray[Scalar]:
    return values.detach().cpu().numpy().astype(kind)


def _maybe(values: Tensor | None, kind: type[Scalar]) -> NDArray[Scalar] | None:
    return None if values is None else _array(values, kind)
