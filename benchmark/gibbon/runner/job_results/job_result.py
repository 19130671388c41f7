"""The result of a job: outcomes and failures of its cells."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gibbon.records.outcomes import Outcome
from gibbon.records.run import Failure
from gibbon.runner.failures.boundary import described, storable
from gibbon.runner.failures.raised_by import raised_by
from gibbon.runner.plan.planned import Cell


@dataclass
class JobResult:
    """The outcomes of a job so far, or of one batch, and the failures; by cell digest."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def absorb(self, batch: JobResult) -> None:
        """Appends the result of one batch."""
        self.failures |= batch.failures
        for digest, part in batch.outcomes.items():
            before = self.outcomes.get(digest)
            self.outcomes[digest] = part if before is None else before.then(part)
        for digest in batch.failures:
            self.outcomes.pop(digest, None)

    def put_in_order(self, ids: NDArray[np.int64]) -> None:
        """Sorts the rows of all outcomes by ``ids``: shards come in any order."""
        for digest, each in self.outcomes.items():
            self.outcomes[digest] = each.in_order(ids)

    def fail(self, cells: Iterable[Cell], error: BaseException) -> None:
        """Marks cells as failed, unless they failed before, and removes their outcomes."""
        party = raised_by(error)
        for cell in cells:
            self.outcomes.pop(cell.digest, None)
            trace = storable("".join(traceback.format_exception(error)))
            failure = cell.failure(described(error), traceback=trace, raised_by=party)
            self.failures.setdefault(cell.digest, failure)
