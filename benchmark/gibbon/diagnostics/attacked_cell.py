"""An attacked cell with its outcome, the unattacked outcome and its threat model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gibbon.attacks.base import Attack
from gibbon.core.threat import ThreatModel
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome
from gibbon.records.path_evidence import PathEvidence
from gibbon.records.run import Evaluation

Marks = NDArray[np.bool_]

ITERATIVE = 2  # gradients of a run, at least
SLACK = 1e-3  # of a budget: more than the tolerance of a valid candidate
ROUNDING = 1e-6  # of a distance of the nearest success


@dataclass(frozen=True)
class AttackedCell:
    """An attacked cell with its row, outcomes and threat model; all arrays have shape (N,).

    Args:
        row: its row.
        outcome: its outcome.
        clean: the outcome of the unattacked cell of its model; None if it failed.
        threat: its threat model; None if it is not known.
        steady: whether the model answers the same inputs alike each time.
        adapted: whether the attack sees another view of the model than the one that is judged.
        attack: the attack; None if it is not known.
        gradient_share: share of the coordinates that hold nearly all of the model's gradient
            (`gibbon.diagnostics.perturbed_share.gradient_share`); None if it is not known.
    """

    row: Evaluation
    outcome: Outcome
    clean: Outcome | None = None
    threat: ThreatModel | None = None
    steady: bool = True
    adapted: bool = False
    attack: Attack | None = None
    gradient_share: float | None = None

    def flag(self, kind: str, *, sentence: str, figure: str = "", **more: Any) -> Flag:
        """Returns a flag about this cell."""
        row = self.row
        return Flag(
            kind=kind,
            dataset=row.dataset,
            model=row.model,
            attack=row.attack,
            epsilon=row.epsilon,
            figure=figure,
            sentence=sentence,
            **more,
        )

    @property
    def count(self) -> int:
        """The number of examples."""
        return len(self.outcome.label)

    @property
    def epsilon(self) -> float:
        """The budget in units of the input."""
        return float(self.row.epsilon)

    @property
    def path(self) -> PathEvidence | None:
        """The evidence of the attack's passes; None if there is none."""
        return self.outcome.path

    @property
    def answered(self) -> bool:
        """Whether the model under attack answered the candidates."""
        return self.outcome.margin is not None

    @property
    def wrong(self) -> Marks:
        """The examples that a valid candidate is misclassified of."""
        return self.outcome.any_misclassified

    @property
    def right(self) -> Marks:
        """The examples that are classified correctly unattacked; none if that is not known."""
        if self.clean is None or not np.array_equal(self.clean.example_id, self.outcome.example_id):
            return np.zeros(self.count, dtype=np.bool_)
        return ~self.clean.any_misclassified

    @property
    def survivors(self) -> Marks:
        """The examples that are classified correctly unattacked and under attack."""
        return self.right & ~self.wrong

    @property
    def searches(self) -> bool:
        """Whether the attack searches for the nearest adversarial examples, without a budget."""
        return self.outcome.nearest is not None

    @property
    def takes_gradients(self) -> bool:
        """Whether the attack took gradients."""
        return self.path is not None and bool(np.isfinite(self.path.zero_share).any())

    @property
    def steps(self) -> int:
        """Gradients of the longest run."""
        path = self.path
        if path is None or not len(path.steps):
            return 0
        return int(max(path.steps.max(), path.success_at.max()))

    @property
    def iterative(self) -> bool:
        """Whether the attack took several gradients one after another."""
        return self.steps >= ITERATIVE

    @property
    def lost(self) -> Marks:
        """Whether each example survived although the attack passed an adversarial example of it.

        The example passed is within the budget; bool, shape (N,).
        """
        if self.path is None:
            return np.zeros(self.count, dtype=np.bool_)
        # A list may hold a search, whose path leaves the budget.
        reach = self.epsilon * ((1 - ROUNDING) if self.searches else (1 + SLACK))
        passed = np.isfinite(self.path.success_distance) & (self.path.success_distance <= reach)
        return self.survivors & passed
