"""Gathers the attacked cells of an experiment for comparisons across cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gibbon.diagnostics.attack_order import Attacker
from gibbon.diagnostics.order_flags import ComparedCell
from gibbon.runner.counting.count import Outcomes
from gibbon.runner.plan.planned import PlannedExperiment


def compared_cells(experiment: PlannedExperiment, outcomes: Outcomes) -> Iterator[ComparedCell]:
    """Yields the attacked cells that are done, of models whose unattacked cell is done too."""
    clean = {
        cell.source.name: outcome.misclassified(cell.source.digest)
        for cell in experiment.cells
        if cell.attack is None and (outcome := outcomes.get(cell.digest)) is not None
    }
    backward: Counter[tuple[str, str]] = Counter()  # epsilons share passes: counted at the first
    for cell in experiment.cells:
        if (outcome := outcomes.get(cell.digest)) is not None:
            backward[cell.source.name, cell.label] += outcome.meta.backward_passes
    for cell in experiment.cells:
        found = outcomes.get(cell.digest)
        if cell.attack is None or cell.threat is None or found is None:
            continue
        name, digest = cell.source.name, cell.source.digest
        if name not in clean or digest not in found.scores:
            continue
        attacker = Attacker(
            cell.attack.attack,
            cell.threat,
            experiment.dataset.bounds,
            took_gradients=backward[name, cell.label] > 0,
            carried=cell.attack.spec.carried,
        )
        yield ComparedCell(cell.dataset, name, digest, cell.label, attacker, found, clean[name])
