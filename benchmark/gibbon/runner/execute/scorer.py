"""When the targets other than the source are asked: in each batch, or later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gibbon.records.outcomes import TargetOutcome
from gibbon.runner.boundary import Attempt, boundary, described
from gibbon.runner.outcome_arrays import target_outcome
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell
from gibbon.runner.run_folder import CandidateFile
from gibbon.verify.answers import ask


@dataclass
class TargetScores:
    """What targets answered to a cell's candidates, and what they raised; by target digest."""

    answers: dict[str, TargetOutcome] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def ask(self, target: LoadedModel, candidates: Tensor, attempt: Attempt) -> None:
        """Appends what a target answers to the next candidates, or records what it raises."""
        with boundary(partial(self.fail, target), attempt):
            more = target_outcome(ask(target.classifier, candidates))
            before = self.answers.get(target.digest)
            self.answers[target.digest] = more if before is None else before.then(more)

    def fail(self, target: LoadedModel, error: BaseException) -> None:
        """Records what a target raised."""
        self.errors[target.digest] = described(error)


class Scorer(ABC):
    """Decides when the targets of a job other than its source are asked."""

    #: Whether an interrupted job is saved, to be resumed by the next run.
    resumes: ClassVar[bool]

    @abstractmethod
    def score(self, cell: Cell, candidates: Tensor, attempt: Attempt) -> TargetScores:
        """Returns what targets answer to the candidates of a batch, if they are asked now."""

    @abstractmethod
    def count(self, cells: Iterable[str]) -> None:
        """Takes note that a batch counts, for the cells with these digests."""


class ScoreNow(Scorer):
    """Asks the targets in each batch; all of them are on the device."""

    resumes = True

    def score(self, cell: Cell, candidates: Tensor, attempt: Attempt) -> TargetScores:
        """Returns the answers of the targets."""
        scores = TargetScores()
        for target in cell.others:
            scores.ask(target, candidates, attempt)
        return scores

    def count(self, cells: Iterable[str]) -> None:
        """Does nothing: all candidates are scored."""


class DeferScoring(Scorer):
    """Writes candidates to the files of their cells; they are scored when all are made."""

    resumes = False  # the candidates of an interrupted job are gone

    def __init__(self, files: Mapping[str, CandidateFile]) -> None:
        self._files = files
        self._batch: dict[str, NDArray[np.float32]] = {}

    def score(self, cell: Cell, candidates: Tensor, attempt: Attempt) -> TargetScores:
        """Returns no answers; puts the candidates aside until the batch counts."""
        if cell.digest in self._files:
            self._batch[cell.digest] = candidates.detach().cpu().numpy()
        return TargetScores()

    def count(self, cells: Iterable[str]) -> None:
        """Appends the candidates of a batch to the files of these cells."""
        for digest in self._files.keys() & set(cells):
            self._files[digest].append(self._batch[digest])
