"""Completes the kept examples of a run whose cells are computed.

A cell may have been computed before examples were kept, or a run may have been killed before they
were written.  Candidates do not depend on the batch, so those that are missing are made again; the
passes count for no cell.  An example that is carried over from another cell is copied from there.
One whose candidate is not the recorded one, because the model answers at random, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gibbon.core.files import remove_folder
from gibbon.datasets.base import Batch
from gibbon.records.kept_examples import EXAMPLES, PART_BYTES, KeptExamples, clean_folder
from gibbon.records.outcomes import Outcome
from gibbon.runner.failures.batch_loop import in_batches
from gibbon.runner.failures.boundary import Attempt, boundary
from gibbon.runner.failures.raised_by import attributed
from gibbon.runner.gallery.recover import judged_again
from gibbon.runner.job_results.outcome_arrays import as_array
from gibbon.runner.kept_examples.choice import KeptChoice, choice_of
from gibbon.runner.own_processes.worker import IN_THIS_PROCESS, Worker
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.selection import read_batch, read_batches
from gibbon.runner.run_folder import RunFolder
from gibbon.runner.run_progress.progress import Progress


def complete_examples(
    plan: Plan, folder: RunFolder, *, progress: Progress, worker: Worker = IN_THIS_PROCESS
) -> None:
    """Writes the kept examples that are missing, and the clean inputs of all of them.

    A cell whose examples can't be made again keeps those that it has; the reason is reported to
    ``progress``.  Raises `RunFolderError` if a file can't be written.
    """
    choice = choice_of(plan)
    if choice is None:
        return
    for experiment in plan.experiments:
        kept: set[int] = set()
        for cell in experiment.cells:
            if cell.attack is None or not len(experiment.ids):
                continue
            lost: list[BaseException] = []
            with boundary(lost.append):
                completion = _Completion(plan, experiment, cell, folder, choice)
                if completion.missing().size:

                    def work(own: Progress, completion: _Completion = completion) -> None:
                        completion.complete(own)

                    worker.run(work, progress)
            if lost:
                progress.note(f"examples of {cell} are not all kept: {attributed(lost[0])}")
            kept.update(KeptExamples(folder.path, cell.digest).places)
        _write_clean(experiment, folder, kept)
    for cell in plan.cells:  # the examples of members are those of their list now
        for member in cell.members:
            if member.digest != cell.digest:
                remove_folder(folder.path / EXAMPLES / member.digest)


def _write_clean(experiment: PlannedExperiment, folder: RunFolder, kept: set[int]) -> None:
    """Writes the clean inputs of the kept examples that are not there yet."""
    store = KeptExamples(folder.path, clean_folder(experiment.dataset.digest))
    ids = np.array(sorted(kept.intersection(experiment.ids.tolist())), dtype=np.int64)
    missing = ids[~store.has(ids)]
    for part in _in_parts(missing, experiment):
        store.write(part, as_array(read_batch(experiment.dataset, part).inputs, np.float32))


def _in_parts(ids: NDArray[np.int64], experiment: PlannedExperiment) -> Iterator[NDArray[np.int64]]:
    each = 4 * int(np.prod(experiment.dataset.input_shape))
    count = max(1, PART_BYTES // max(1, each))
    yield from (ids[at : at + count] for at in range(0, len(ids), count))


@dataclass
class _Completion:
    """Completes the examples of one cell."""

    plan: Plan
    experiment: PlannedExperiment
    cell: Cell
    folder: RunFolder
    choice: KeptChoice

    def missing(self) -> NDArray[np.int64]:
        """Returns the ids of the examples that should be kept and are not."""
        outcome = self.folder.read(self.cell.digest)
        if outcome is None:
            return np.zeros(0, dtype=np.int64)
        wanted = outcome.example_id[self.choice.chosen(self.cell, outcome)]
        return wanted[~KeptExamples(self.folder.path, self.cell.digest).has(wanted)]

    def complete(self, progress: Progress) -> None:
        """Copies or makes again what is missing."""
        outcome = self.folder.read(self.cell.digest)
        if outcome is None:
            return
        store = KeptExamples(self.folder.path, self.cell.digest)
        for origin, ids in self._origins(self.missing()):
            if origin.attack is None:  # a clean mistake is carried over as it is
                for part in _in_parts(ids, self.experiment):
                    batch = read_batch(self.experiment.dataset, part)
                    store.write(part, as_array(batch.inputs, np.float32))
                continue
            earlier = KeptExamples(self.folder.path, origin.digest)
            if origin.digest != self.cell.digest:
                for found, inputs in earlier.parts(ids):
                    store.write(found, inputs)
            left = ids[~store.has(ids)]
            if len(left):
                progress.note(
                    f"{self.cell}: {len(left):,} examples that were not kept are attacked again"
                )
                self._attack_again(origin, left, outcome, store, progress)

    def _origins(self, ids: NDArray[np.int64]) -> Iterator[tuple[Cell, NDArray[np.int64]]]:
        """Yields the cells that made the candidates of these examples, with the ids of each."""
        parts = [part for each in self.experiment.cells for part in (*each.members, each)]
        cells = {part.digest: part for part in reversed(parts)}  # the last member, not its list
        cell = self.cell.members[-1] if self.cell.members else self.cell
        while len(ids) and cell.follows is not None:
            earlier = self.folder.read(cell.follows)
            if earlier is None:
                break
            before = earlier.example_id[earlier.any_misclassified]
            carried = np.isin(ids, before)
            if not carried.all():
                yield cell, ids[~carried]
            cell, ids = cells[cell.follows], ids[carried]
        if len(ids):
            yield cell, ids

    def _attack_again(
        self,
        origin: Cell,
        ids: NDArray[np.int64],
        outcome: Outcome,
        store: KeptExamples,
        progress: Progress,
    ) -> None:
        experiment, device = self.experiment, self.plan.device
        self.plan.pool.load([origin.source.handle])
        errors: list[BaseException] = []
        left_out = 0

        def compute(stream: Iterator[Batch], attempt: Attempt) -> _MadeAgain:
            batch = next(stream).to(device)
            with boundary(errors.append, attempt):
                return _again(origin, batch, outcome)
            return _MadeAgain()

        batches = in_batches(
            len(ids),
            experiment.batch_size(origin.source, origin.attack),
            device=device,
            fetch=lambda parts: read_batches(experiment.dataset, [ids[part] for part in parts]),
            compute=compute,
            note=lambda text: progress.note(f"{self.cell}: {text}"),
        )
        with closing(batches):
            for found, _ in batches:
                if errors:
                    raise errors[0]
                store.write(found.ids, found.inputs)
                left_out += found.differing
        if left_out:
            progress.note(
                f"{self.cell}: {left_out:,} examples are not kept: their candidates differ"
            )


@dataclass(frozen=True)
class _MadeAgain:
    """Examples of a batch that were made again as they are recorded, and how many were not."""

    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    inputs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1), dtype=np.float32))
    differing: int = 0


def _again(origin: Cell, batch: Batch, outcome: Outcome) -> _MadeAgain:
    judged, ids = judged_again(origin, batch), batch.ids.cpu().numpy()
    place = {each: at for at, each in enumerate(outcome.example_id.tolist())}
    rows = np.array([place[each] for each in ids.tolist()], dtype=np.int64)
    same = as_array(judged.verdict, np.int8) == outcome.verdict[rows]
    recorded = outcome.scores.get(origin.source.digest)
    if judged.answers is not None and recorded is not None:
        same &= as_array(judged.answers.predicted, np.int32) == recorded.predicted[rows]
    inputs = as_array(judged.candidates, np.float32)
    return _MadeAgain(ids[same], inputs[same], int((~same).sum()))
