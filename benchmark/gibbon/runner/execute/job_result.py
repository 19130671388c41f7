"""The results of a job so far."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from gibbon.records.outcomes import Outcome
from gibbon.records.run import Failure
from gibbon.runner.execute.jobs import CellWork
from gibbon.runner.gallery.select import Picked
from gibbon.runner.plan.cell import Cell


@dataclass
class Findings:
    """What a job has found so far, by cell digest, and which of its cells failed.

    ``candidates`` are those of one batch, until they are put away; ``pictures`` the examples that
    galleries may show.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    candidates: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Picked] = field(default_factory=dict)

    def absorb(self, batch: Findings) -> None:
        """Appends all that came of one batch."""
        for digest, failure in batch.failures.items():
            self.outcomes.pop(digest, None)
            self.failures[digest] = failure
        for digest, chunk in batch.outcomes.items():
            sofar = self.outcomes.get(digest)
            self.outcomes[digest] = chunk if sofar is None else sofar.then(chunk)
        for digest, picked in batch.pictures.items():
            before = self.pictures.get(digest)
            self.pictures[digest] = picked if before is None else before.then(picked)

    def fail_all(self, works: Iterable[CellWork], error: BaseException) -> None:
        """Marks those of these cells as failed that did not fail before."""
        for work in works:
            if work.cell.digest not in self.failures:
                self.fail(work.cell, error)

    def fail(self, cell: Cell, error: BaseException) -> None:
        """Marks a cell as failed and forgets what it had found."""
        self.outcomes.pop(cell.digest, None)
        self.candidates.pop(cell.digest, None)
        self.pictures.pop(cell.digest, None)
        self.failures[cell.digest] = Failure(
            dataset=cell.dataset,
            model=cell.source.name,
            attack=cell.label,
            epsilon=cell.epsilon,
            error=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )
