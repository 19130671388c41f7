"""Galleries that are missing when a run is done, and those that nobody needs any more.

Pictures are picked while candidates are made (`gibbon.runner.gallery.select`).  Where a run went on
after an interruption, or goes on from one that kept none, the few candidates are made again: they
don't depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.records.gallery import FOLDER, Gallery, read_gallery
from gibbon.records.outcomes import Outcome, TargetOutcome
from gibbon.runner.execute.batch import described
from gibbon.runner.execute.boundary import boundary
from gibbon.runner.gallery.select import Frame, Ranks, frames, gallery, pick, unattacked
from gibbon.runner.plan.cell import Cell, Plan, PlannedExperiment
from gibbon.runner.progress import Progress
from gibbon.runner.run_folder import RunFolder
from gibbon.verify.guard import guarding
from gibbon.verify.judge import judge
from gibbon.verify.proposal import propose


def complete_pictures(plan: Plan, folder: RunFolder, *, progress: Progress) -> None:
    """Writes the galleries that are not there yet, and removes those of other cells.

    A cell of which no pictures can be made goes without, and that is told.  Raises
    `RunFolderError` where a file can't be written.
    """
    framed = frames(plan)
    keep = {digest for frame in framed.values() for digest in frame.digests}
    for stale in (folder.path / FOLDER).glob("*.npz"):
        if stale.stem not in keep:
            stale.unlink(missing_ok=True)
    for experiment, cell, outcome in _missing(plan, folder, framed):
        lost: list[BaseException] = []
        made: list[Gallery] = []
        frame = framed[experiment.spec.dataset.name]
        with boundary(lost.append, retry=False, count=frame.count):
            plan.stage.show([cell.source.handle])
            made.extend(_made_again(plan, folder, experiment, cell, outcome, frame))
        if lost:
            progress.note(f"no pictures of {cell}: {described(lost[0])}")
        for each in made:
            folder.write_gallery(each)


def _missing(
    plan: Plan, folder: RunFolder, framed: dict[str, Frame]
) -> Iterator[tuple[PlannedExperiment, Cell, Outcome]]:
    for experiment in plan.experiments:
        frame = framed.get(experiment.spec.dataset.name)
        if frame is None:
            continue
        for cell in experiment.cells:
            if cell.digest in frame.digests and read_gallery(folder.path, cell.digest) is None:
                outcome = folder.read(cell.digest)
                if outcome is not None and cell.source.digest in outcome.scores:
                    yield experiment, cell, outcome


def _made_again(
    plan: Plan,
    folder: RunFolder,
    experiment: PlannedExperiment,
    cell: Cell,
    outcome: Outcome,
    frame: Frame,
) -> Iterator[Gallery]:
    """Yields the gallery of a cell, of the examples that its outcome chooses."""
    if cell.attack is None or cell.threat is None:
        return
    digest = cell.source.digest
    unattacked_outcome = folder.read(unattacked(experiment, cell.source).digest)
    if unattacked_outcome is None:
        return
    clean = unattacked_outcome.scores[digest]
    ranks = Ranks(
        outcome.example_id,
        misled=outcome.misclassified(digest),
        clean_right=clean.predicted == outcome.label,
        confidence=outcome.scores[digest].confidence,
    )
    places = list(ranks.chosen(frame))
    ids = outcome.example_id[places]
    source = cell.source.classifier
    batch = experiment.dataset.batch(ids).to(plan.device)
    streams = ExampleStreams.derive(cell.attack.stream_key, batch.ids)
    seed = derive_key(cell.attack.stream_key, int(ids[0]))
    with guarding(source, batch, seed=seed) as guarded:
        (tries,) = propose(
            cell.attack.attack, source, guarded.batch, threats=[cell.threat], streams=streams
        )
        judged = judge(source, batch, proposed=tries, threat=cell.threat, watch=guarded.watch)
    picked = pick(
        frame, batch, judged, clean=TargetOutcome(clean.predicted[places], clean.confidence[places])
    )
    if picked is not None:
        yield gallery(picked, digest=cell.digest)
