"""Scores candidates on the targets other than the source: in each batch, or later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gibbon.datasets.base import Batch
from gibbon.records.outcomes import Outcome
from gibbon.runner.failures.boundary import Attempt
from gibbon.runner.job_results.target_scores import TargetScores, scores_of
from gibbon.runner.plan.planned import Cell

ALL = 1 << 62  # candidates


class Scorer(ABC):
    """Decides when candidates are scored on the targets other than the source."""

    #: Whether an interrupted job is saved, to be resumed by the next run.
    resumes: bool

    @abstractmethod
    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns the answers of targets to the candidates of a batch; empty if deferred."""

    def accept(self, cells: Mapping[str, Outcome]) -> None:  # noqa: B027  what it kept of it
        """Accepts the last batch for the cells of these outcomes; other batches are discarded."""

    def needs(self, cell: Cell) -> int:
        """Returns how many candidates of the first batch it needs of a cell; or `ALL`, of all."""
        return 0

    def take(self, cell: Cell, candidates: Batch) -> None:  # noqa: B027  if it needs any
        """Takes the candidates that it needs, if another process has scored the batch."""


class ScoreNow(Scorer):
    """Scores candidates in each batch; all targets are on the device."""

    resumes = True

    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns the answers of the targets."""
        return scores_of(cell.others, candidates, attempt)


class DeferScoring(Scorer):
    """Writes candidates to files, to be scored after the job."""

    resumes = False  # the candidates of an interrupted job are not kept

    def __init__(self, files: Mapping[str, BinaryIO]) -> None:
        self._files = files
        self._batch: dict[str, NDArray[np.float32]] = {}

    def score(self, cell: Cell, candidates: Batch, attempt: Attempt) -> TargetScores:
        """Returns no answers, and takes the candidates."""
        if cell.digest in self._files:
            self.take(cell, candidates)
        return TargetScores()

    def needs(self, cell: Cell) -> int:
        """Returns `ALL` if the cell has targets to score."""
        return ALL if cell.digest in self._files else 0

    def take(self, cell: Cell, candidates: Batch) -> None:
        """Keeps the candidates until the batch is accepted."""
        self._batch[cell.digest] = candidates.inputs.detach().cpu().numpy()

    def accept(self, cells: Mapping[str, Outcome]) -> None:
        """Appends the candidates of a batch to the files of these cells."""
        for digest in self._files.keys() & cells.keys():
            self._files[digest].write(np.ascontiguousarray(self._batch[digest], dtype="<f4").data)
            self._files[digest].flush()  # this process may end without closing the file
