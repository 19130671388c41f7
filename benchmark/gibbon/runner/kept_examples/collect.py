"""Takes adversarial examples while a job runs, and writes them from time to time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gibbon.datasets.base import Batch
from gibbon.records.kept_examples import PART_BYTES, KeptExamples
from gibbon.records.outcomes import Outcome
from gibbon.runner.execute.scorer import Scorer
from gibbon.runner.failures.boundary import Attempt
from gibbon.runner.job_results.target_scores import TargetScores
from gibbon.runner.kept_examples.choice import KeptChoice
from gibbon.runner.plan.planned import Cell


@dataclass
class ExampleCollector:
    """Takes the examples of a run's cells.

    Args:
        choice: which are kept; None keeps none.
        folder: the run's folder.
        every: seconds between two writings.
    """

    choice: KeptChoice | None
    folder: Path
    every: float

    @contextmanager
    def around(self, scorer: Scorer) -> Iterator[Scorer]:
        """Yields a scorer for a job; what it has taken is written when the block ends."""
        if self.choice is None:
            yield scorer
            return
        collecting = CollectingScorer(scorer, self.choice, self.folder, self.every)
        try:
            yield collecting
        finally:
            collecting.write()


@dataclass
class _Unwritten:
    """Examples of a cell that are not written yet."""

    ids: list[NDArray[np.int64]] = field(default_factory=list)
    inputs: list[NDArray[np.float32]] = field(default_factory=list)


class CollectingScorer(Scorer):
    """A scorer that takes the candidates of accepted batches, too."""

    def __init__(self, scorer: Scorer, choice: KeptChoice, folder: Path, every: float) -> None:
        self.resumes = scorer.resumes
        self._scorer = scorer
        self._choice = choice
        self._folder = folder
        self._every = every
        self._offered: dict[str, tuple[Cell, Batch]] = {}
        self._waiting: dict[str, _Unwritten] = {}
        self._bytes, self._written = 0, time.monotonic()

    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns the answers of targets."""
        ids, inputs = (each.detach().cpu() for each in (candidates.ids, candidates.inputs))
        self._offered[cell.digest] = (cell, Batch(ids, inputs.clone(), candidates.labels))
        return self._scorer.score(cell, candidates, attempt)

    def accept(self, cells: Mapping[str, Outcome]) -> None:
        """Takes the chosen examples of the last batch."""
        for digest, outcome in cells.items():
            if digest not in self._offered:
                continue
            cell, batch = self._offered[digest]
            ids: NDArray[np.int64] = batch.ids.numpy()
            if not np.array_equal(ids, outcome.example_id):  # of an attempt that was given up
                continue
            chosen = self._choice.chosen(cell, outcome)
            inputs: NDArray[np.float32] = batch.inputs.float().numpy()[chosen]
            waiting = self._waiting.setdefault(digest, _Unwritten())
            waiting.ids.append(ids[chosen])
            waiting.inputs.append(inputs)
            self._bytes += inputs.nbytes
        self._offered.clear()
        self._scorer.accept(cells)
        if self._bytes > PART_BYTES or time.monotonic() - self._written > self._every:
            self.write()

    def write(self) -> None:
        """Writes what was taken."""
        for digest, each in self._waiting.items():
            KeptExamples(self._folder, digest).write(
                np.concatenate(each.ids), np.concatenate(each.inputs)
            )
        self._waiting.clear()
        self._bytes, self._written = 0, time.monotonic()
