"""Computes the cells of a job, batch by batch, and saves what it has from time to time.

Whatever a cell raises is caught at its boundary: the cell is recorded as failed, the others go on.
Ctrl-C saves what is there and goes up.  A batch counts as a whole or not at all: where memory runs
out it is tried again by halves, and nothing is counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.core.errors import AttackError, DatasetError
from gibbon.datasets.base import Batch, Dataset
from gibbon.models.memory import give_back
from gibbon.records.outcomes import Outcome
from gibbon.records.run import Failure
from gibbon.runner.execute.batch import NOTHING_TO_FOLLOW, _meta, _Picker, _run_batch, _Spent
from gibbon.runner.execute.boundary import BatchSizes, TooLargeError, boundary
from gibbon.runner.execute.job_result import Findings
from gibbon.runner.execute.jobs import Job, Keeper
from gibbon.runner.gallery.select import frames, gallery, unattacked
from gibbon.runner.plan.cell import Plan
from gibbon.runner.progress import Progress
from gibbon.runner.run_folder import RunFolder

SAME_SHARE = 0.95
NOT_REPEATED = (
    "the attack did not make the same candidates again, so that a new target can't be scored on "
    "them: run again with --fresh"
)


def execute(
    job: Job,
    plan: Plan,
    folder: RunFolder,
    *,
    sizes: BatchSizes,
    progress: Progress,
    keeper: Keeper | None = None,
) -> Mapping[str, Failure]:
    """Computes a job's cells, writes their outcomes, and returns the failures by cell digest.

    With a keeper the source alone is asked; the candidates go to the keeper, and a job that is
    interrupted begins again, since they are not there any more.
    """
    cells = {work.cell.digest: work for work in job.all_cells}
    findings = Findings(folder.read_partial(job.digest, cells) if keeper is None else {})
    ids = job.experiment.ids
    before = None
    if job.chain is not None:
        before = folder.read(job.chain.follows)
        if before is None:
            return _nothing_to_follow(job, progress)
        ids = ids[job.chain.left(before)]
        progress.advance((len(job.experiment.ids) - len(ids)) * job.work, doing=job.name)
    position = min((len(each.example_id) for each in findings.outcomes.values()), default=0)
    # Of a job that goes on, the examples of its earlier batches are gone: see `pictures`.
    picker = _picker(job, plan, folder) if position == 0 else None
    effort = job.effort(keeper)
    progress.advance(position * effort, doing=job.name)
    saved = time.monotonic()
    try:
        while position < len(ids) and set(findings.failures) < set(cells):
            size = sizes.of(job)
            batches = _batches(job, ids[position:], plan.device, findings, sizes, keeper, picker)
            with closing(batches):
                for found in batches:
                    findings.absorb(found.findings)
                    if keeper is not None:
                        for digest, candidates in found.findings.candidates.items():
                            keeper.keep(digest, candidates)
                    position += found.count
                    progress.advance(found.count * effort, doing=job.name)
                    if set(findings.failures) >= set(cells):
                        break
                    if keeper is None and time.monotonic() - saved > plan.settings.save_every:
                        _save(job, findings, folder)
                        saved = time.monotonic()
            if position < len(ids) and set(findings.failures) < set(cells):
                tried = min(size, len(ids) - position)
                size = sizes.halve(job, tried=tried)
                give_back(plan.device)
                progress.note(
                    f"{job.name}: out of memory with {tried} examples at a time, "
                    f"going on with {size}"
                )
    except KeyboardInterrupt:
        if keeper is None:
            _save(job, findings, folder)
        raise
    progress.advance((len(ids) - position) * effort, doing=job.name)
    # The cell that the shared passes are booked on comes last but for the unattacked one: a run
    # that is killed between two of these books them on the same cell when it goes on.
    for digest in dict.fromkeys([*reversed([work.cell.digest for work in job.cells]), *cells]):
        outcome = findings.outcomes.pop(digest, None)
        if job.chain is not None and before is not None and digest not in findings.failures:
            spent = _Spent(0, 0, 0.0)
            meta = _meta(cells[digest], [cells[digest].cell.source.digest], {}, spent)
            outcome = job.chain.joined(before, outcome, meta=meta)
        if outcome is None:
            continue
        recorded = cells[digest].recorded
        if recorded is None:
            folder.write(digest, outcome)
            if digest in findings.pictures:
                folder.write_gallery(gallery(findings.pictures[digest], digest=digest))
        elif not _same_candidates(recorded, outcome):
            findings.fail(cells[digest].cell, AttackError(NOT_REPEATED))
        elif keeper is None:
            folder.write(digest, recorded.with_targets(outcome))
    folder.drop_partial(job.digest)
    if job.chain is not None and job.chain.last:
        folder.drop_prefixes(job.chain.of)
    if findings.failures:
        sizes.begin_again(job)
    tell_failures(findings.failures.values(), progress)
    return findings.failures


def _picker(job: Job, plan: Plan, folder: RunFolder) -> _Picker | None:
    if not plan.settings.pictures or job.chain is not None:
        return None
    frame = frames(plan).get(job.experiment.spec.dataset.name)
    new = {each.cell.digest for each in job.cells if each.recorded is None}
    if frame is None or not new & frame.digests:
        return None
    clean = None if job.clean else folder.read(unattacked(job.experiment, job.source).digest)
    return _Picker(frame, frame.digests & new, clean)


def _nothing_to_follow(job: Job, progress: Progress) -> Mapping[str, Failure]:
    """Returns the failures of a job whose earlier one failed; of a list the earlier one's do."""
    progress.advance(len(job.experiment.ids) * job.work, doing=job.name)
    findings = Findings()
    if job.chain is not None and not job.chain.member:
        findings.fail_all(job.all_cells, AttackError(NOTHING_TO_FOLLOW))
    tell_failures(findings.failures.values(), progress)
    return findings.failures


def tell_failures(failures: Iterable[Failure], progress: Progress) -> None:
    """Says which cells failed."""
    for failure in failures:
        name = f"{failure.dataset}, {failure.model}, {failure.attack} at epsilon {failure.epsilon}"
        progress.failed(name, error=failure.error)


@dataclass(frozen=True)
class _Found:
    """What came of one batch, and how many examples it had."""

    findings: Findings
    count: int


def _batches(
    job: Job,
    ids: NDArray[np.int64],
    device: torch.device,
    findings: Findings,
    sizes: BatchSizes,
    keeper: Keeper | None,
    picker: _Picker | None,
) -> Generator[_Found]:
    """Yields what came of each batch; ends early where memory ran out and less may be tried."""
    size = sizes.of(job)
    chunks = [ids[start : start + size] for start in range(0, len(ids), size)]
    with closing(_stream(job.experiment.dataset, chunks)) as stream:
        for chunk in chunks:
            # What is found counts once the whole batch is known to have fitted.
            found = Findings(failures=dict(findings.failures))
            try:
                retry = sizes.may_halve(len(chunk))
                with boundary(
                    lambda error, found=found: found.fail_all(job.all_cells, error),  # type: ignore[misc]
                    retry=retry,
                    count=len(chunk),
                ):
                    batch = _next(stream, chunk, job.experiment.dataset)
                    _run_batch(
                        job,
                        batch,
                        device,
                        found,
                        retry=retry,
                        keep=keeper is not None,
                        room=size,
                        picker=picker,
                    )
            except TooLargeError:
                return
            yield _Found(found, len(chunk))


def _stream(dataset: Dataset, chunks: Sequence[NDArray[np.int64]]) -> Generator[Batch]:
    yield from dataset.batches(chunks)  # whose own stream is closed with this one


def _next(stream: Iterator[Batch], ids: NDArray[np.int64], dataset: Dataset) -> Batch:
    batch = next(stream, None)
    if batch is None or not np.array_equal(batch.ids.numpy(), ids):
        raise DatasetError(
            f"dataset {dataset.name!r}: batches() must give the examples that were asked for, in "
            "that order"
        )
    return batch


def _same_candidates(recorded: Outcome, again: Outcome) -> bool:
    """Says whether candidates that were made again lie where the recorded ones did.

    Rounding may move a few; another random number moves nearly all.
    """
    near = np.isclose(again.distance, recorded.distance, rtol=1e-3, atol=1e-6, equal_nan=True)
    same = near & (again.verdict == recorded.verdict)
    return bool(np.mean(same) >= SAME_SHARE)


def _save(job: Job, findings: Findings, folder: RunFolder) -> None:
    cells = [work.cell.digest for work in job.all_cells]
    outcomes = findings.outcomes.values()
    lengths = {len(outcome.example_id) for outcome in outcomes}
    answered = all(outcome.scores for outcome in outcomes)
    if set(findings.outcomes) == set(cells) and len(lengths) == 1 and answered:
        folder.write_partial(job.digest, findings.outcomes)
