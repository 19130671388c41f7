"""Estimates how many examples the attacks of a plan leave, by a short attack on a few of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gibbon.attacks.base import SearchMethod
from gibbon.core.threat import ThreatModel
from gibbon.diagnostics.examination.examine import undisturbed
from gibbon.diagnostics.examination.short_attack import SCHEDULES, ShortAttack
from gibbon.diagnostics.examination.subject import Subject
from gibbon.metrics.intervals import wilson_interval
from gibbon.runner.estimate.attack_passes import ONE, NumberRange
from gibbon.runner.failures.boundary import boundary
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.plan.selection import read_batch

EXAMPLES = 32  # that are attacked; the interval of their share is the range
UNKNOWN = NumberRange(0.0, 0.5, 1.0)  # share of survivors if a model can't be attacked here
ANY_ATTACK = 0.7  # of the survivors of a short attack, those that longer attacks leave at least
PASSES = 2000  # by example


@dataclass
class SurvivorShares:
    """The estimated shares of examples that are classified correctly, clean and under attack.

    ``of`` makes an attack only once for each model and threat model.
    """

    plan: Plan
    _clean: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    _known: dict[tuple[str, str, ThreatModel | None], NumberRange] = field(default_factory=dict)

    def of(
        self, experiment: PlannedExperiment, model: LoadedModel, threat: ThreatModel | None
    ) -> NumberRange:
        """Returns the share of survivors of a threat model, or of clean examples if it is None."""
        key = model.digest, experiment.data_digest, threat
        if key not in self._known:
            found: list[NumberRange] = []
            with boundary(lambda error: found.append(UNKNOWN)):
                found.append(self._measured(experiment, model, threat))
            self._known[key] = found[0]
        return self._known[key]

    def _measured(
        self, experiment: PlannedExperiment, model: LoadedModel, threat: ThreatModel | None
    ) -> NumberRange:
        ids = experiment.ids
        if not len(ids):
            return ONE
        few = ids[np.unique(np.linspace(0, len(ids) - 1, EXAMPLES).astype(np.int64))]
        batch = read_batch(experiment.dataset, few).to(self.plan.device)
        self.plan.pool.load([model.handle])
        classifier = model.classifier
        with undisturbed(classifier, self.plan.device), classifier.uncounted():
            with torch.no_grad():
                correct = classifier.predict(batch.inputs).argmax(1) == batch.labels
            left = int(correct.sum())
            if threat is not None and left and not classifier.forward_only:
                subject = Subject(classifier, model.probed.observed, self.plan.device, PASSES)
                attack = ShortAttack(subject, batch, threat, SCHEDULES[0][1])
                attack.run()
                left = int((correct & ~attack.done).sum())
        if threat is not None and classifier.forward_only:
            return UNKNOWN
        interval = wilson_interval(left, len(few))
        low = interval.low if threat is None else ANY_ATTACK * interval.low
        return NumberRange(low, left / len(few), interval.high)


def after(
    cell: Cell, experiment: PlannedExperiment, shares: SurvivorShares, cells: dict[str, Cell]
) -> NumberRange:
    """Returns the share of examples that are left after a cell and those that it follows.

    ``cells`` holds the cells of the experiment and the members of lists, by digest.
    """
    earlier = cells.get(cell.follows) if cell.follows is not None else None
    before = shares.of(experiment, cell.source, None)
    if earlier is not None:
        before = after(earlier, experiment, shares, cells)
    if cell.attack is None or cell.threat is None:
        return before
    if cell.attack.attack.search_method is SearchMethod.NOISE:  # it fools few
        return before
    own = shares.of(experiment, cell.source, cell.threat)
    return NumberRange(
        min(before.low, own.low), min(before.likely, own.likely), min(before.high, own.high)
    )
