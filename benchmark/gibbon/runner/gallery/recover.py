"""Recovers the candidates that galleries show, after the run.

Candidates don't depend on the batch, so the few examples of a gallery are attacked again, and
`gibbon.verify` judges the candidates again.  The passes spent here count for no cell.  An example
whose candidate differs from the recorded one, because the model answers at random, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gibbon.core.errors import AttackError
from gibbon.core.files import remove_file
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import Verdict
from gibbon.datasets.base import Batch
from gibbon.records.gallery import FOLDER, Gallery, read_gallery
from gibbon.records.outcomes import Outcome, TargetOutcome
from gibbon.runner.failures.boundary import Attempt, boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.gallery.draw import draw_examples, shrunk
from gibbon.runner.gallery.select import GalleryFrame, Ranks, frames, unattacked_cell
from gibbon.runner.job_results.outcome_arrays import as_array
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, Worker
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.selection import read_batch
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress
from gibbon.verify.guard import guarding
from gibbon.verify.judge import Judged, judge, judge_clean
from gibbon.verify.proposal import propose

NOT_REPEATED = "the candidates that were made again are not the recorded ones"


def recover_galleries(
    plan: Plan, folder: RunFolder, *, progress: Progress, worker: Worker = IN_THIS_PROCESS
) -> None:
    """Writes the missing galleries, and removes those of cells that are not in the plan.

    A cell whose pictures can't be made has no gallery; the reason is reported to ``progress``.
    ``worker`` runs the attacks again.  Raises `RunFolderError` if a file can't be written.
    """
    framed = frames(plan)
    keep = {digest for frame in framed.values() for digest in frame.digests}
    for stale in (folder.path / FOLDER).glob("*.npz"):
        if stale.stem not in keep:
            remove_file(stale)
    for wanted in _missing(plan, folder, framed):
        lost: list[BaseException] = []
        made: list[Gallery] = []
        with boundary(lost.append, Attempt(wanted.frame.count)):

            def work(_: Progress, wanted: _MissingGallery = wanted) -> Gallery:
                plan.pool.load([wanted.cell.source.handle])
                return _recovered(wanted, plan.device, folder)

            made.append(worker.run(work, progress))
        if lost:
            progress.note(f"no pictures of {wanted.cell}: {attributed(lost[0])}")
        for each in made:
            folder.write_gallery(each)


@dataclass(frozen=True)
class _MissingGallery:
    """A cell without its gallery, its outcome, and its source's answers to the clean inputs."""

    experiment: PlannedExperiment
    cell: Cell
    frame: GalleryFrame
    outcome: Outcome
    clean: TargetOutcome

    @property
    def recorded(self) -> TargetOutcome:
        """The source's recorded answers to the candidates."""
        return self.outcome.scores[self.cell.source.digest]


def _missing(
    plan: Plan, folder: RunFolder, framed: Mapping[str, GalleryFrame]
) -> Iterator[_MissingGallery]:
    for experiment in plan.experiments:
        frame = framed.get(experiment.spec.dataset.name)
        if frame is None:
            continue
        for cell in experiment.cells:
            if cell.digest in frame.digests and read_gallery(folder.path, cell.digest) is None:
                outcome = folder.read(cell.digest)
                clean = folder.read(unattacked_cell(experiment, cell.source).digest)
                source = cell.source.digest
                if outcome is not None and clean is not None and source in outcome.scores:
                    yield _MissingGallery(experiment, cell, frame, outcome, clean.scores[source])


def _recovered(wanted: _MissingGallery, device: torch.device, folder: RunFolder) -> Gallery:
    """Returns the gallery of a cell, with the examples selected by its outcome."""
    outcome, clean, recorded = wanted.outcome, wanted.clean, wanted.recorded
    ranks = Ranks(
        outcome.example_id,
        misclassified=outcome.misclassified(wanted.cell.source.digest),
        clean_correct=clean.predicted == outcome.label,
        confidence=recorded.confidence,
    )
    chosen = ranks.chosen(wanted.frame)
    places = np.array(list(chosen), dtype=np.int64)
    batch = read_batch(wanted.experiment.dataset, outcome.example_id[places]).to(device)
    remade = _remade(wanted, batch, places, folder)
    same = remade.predicted == recorded.predicted[places]
    same &= remade.verdict == outcome.verdict[places]
    if not same.any():
        raise AttackError(NOT_REPEATED)
    places, rows = places[same], torch.from_numpy(np.flatnonzero(same)).to(device)
    inputs = batch.inputs[rows]
    change = (remade.candidates[rows] - inputs).nan_to_num(0, 0, 0)
    side, bounds = wanted.frame.side, wanted.frame.bounds
    drawn = draw_examples(shrunk(inputs, side), shrunk(change, side), bounds=bounds)
    return Gallery(
        digest=wanted.cell.digest,
        why=tuple(chosen[place] for place in places.tolist()),
        example_id=outcome.example_id[places],
        label=outcome.label[places],
        before=clean.predicted[places],
        after=remade.predicted[same],
        sure_before=clean.confidence[places],
        sure_after=remade.confidence[same],
        valid=remade.verdict[same] == Verdict.VALID,
        shape=wanted.frame.shape,
        **drawn._asdict(),
    )


@dataclass(frozen=True)
class _RemadeCandidates:
    """Candidates that were made again, the source's answers to them, and their verdicts."""

    candidates: Tensor
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    verdict: NDArray[np.int8]


def _remade(
    wanted: _MissingGallery, batch: Batch, places: NDArray[np.int64], folder: RunFolder
) -> _RemadeCandidates:
    judged, rows = [], []
    for cell, own in _origins(wanted, places, folder):
        if len(own):
            index = torch.from_numpy(own).to(batch.inputs.device)
            part = Batch(batch.ids[index], batch.inputs[index], batch.labels[index])
            judged.append(judged_again(cell, part))
            rows.append(own)
    order = torch.from_numpy(np.argsort(np.concatenate(rows))).to(batch.inputs.device)
    answers = [each.answers for each in judged if each.answers is not None]
    return _RemadeCandidates(
        torch.cat([each.candidates for each in judged])[order],
        as_array(torch.cat([each.predicted for each in answers])[order], np.int32),
        as_array(torch.cat([each.confidence for each in answers])[order], np.float32),
        as_array(torch.cat([each.verdict for each in judged])[order], np.int8),
    )


def judged_again(cell: Cell, batch: Batch) -> Judged:
    """Returns the candidates of a cell for a few examples, judged."""
    source = cell.source.classifier
    if cell.attack is None or cell.threat is None:
        return judge_clean(source, batch)
    key = cell.attack.stream_key
    streams = ExampleStreams.derive(key, batch.ids)
    seed = derive_key(key, int(batch.ids[0]))
    with guarding(source, batch, seed=seed, attack=cell.attack.attack) as guarded:
        seen = cell.attack.seen(source, guarded.batch.inputs)
        (proposed,) = propose(
            cell.attack.attack, seen, guarded.batch, threats=[cell.threat], streams=streams
        )
        return judge(source, batch, proposed=proposed, threat=cell.threat, watch=guarded.watch)


def _origins(
    wanted: _MissingGallery, places: NDArray[np.int64], folder: RunFolder
) -> Iterator[tuple[Cell, NDArray[np.int64]]]:
    """Yields cells with the rows of the examples whose candidates they made.

    A cell made all candidates, unless it takes over those of an earlier cell's misclassified ones.
    """
    cells = {cell.digest: cell for cell in wanted.experiment.cells}
    cell, rows = wanted.cell, np.arange(len(places))
    while cell.follows is not None and (earlier := folder.read(cell.follows)) is not None:
        carried = earlier.any_misclassified[places[rows]]
        yield cell, rows[~carried]
        cell, rows = cells[cell.follows], rows[carried]
    yield cell, rows
