"""Error against epsilon: the curves of a run and their points."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gibbon.metrics.nearest import Curve
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.distance_curves import NO_CURVES, WholeCurves
from gibbon.report.content.parts.lookup import Condition, Measured, RunLookup

# A curve that is known at every epsilon is drawn up to this share of its highest error, or up to
# the largest epsilon of its attack.
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Point:
    """A point of an error curve: ``epsilon`` in the input's units, and the measured rate."""

    epsilon: float
    measured: Measured


@dataclass(frozen=True)
class Panel:
    """The curves of one attack on one dataset, by model, or those of one model, by attack.

    Args:
        dataset: the dataset's name.
        attack: the name of the attack, or of the model.
        curves: the points of each curve that has any.
        whole: the curves that are known at every epsilon.
    """

    dataset: str
    attack: str
    curves: dict[str, tuple[Point, ...]]
    whole: dict[str, Curve] = field(default_factory=dict, repr=False)

    @property
    def end(self) -> float:
        """The largest epsilon that is drawn."""
        ends = [point.epsilon for points in self.curves.values() for point in points]
        for curve in self.whole.values():
            if len(curve.errors):
                reached = int(np.searchsorted(curve.errors, _NEARLY_ALL * curve.errors[-1]))
                ends.append(float(curve.epsilons[reached]))
        return max(ends, default=0.0)


def panels(record: RunRecord, *, whole: WholeCurves = NO_CURVES) -> tuple[Panel, ...]:
    """Returns a panel for each attack with two or more epsilons or with a curve in ``whole``."""
    results = RunLookup(record)
    found = []
    for experiment in results.experiments:
        dataset, models = experiment.dataset.name, [model.name for model in experiment.models]
        for attack in experiment.attacks:
            known = {
                model: whole[dataset, model, attack.label]
                for model in models
                if (dataset, model, attack.label) in whole
            }
            if len(attack.epsilon) > 1 or known:
                conditions = results.attack_conditions(experiment, attack)
                drawn = {model: _curve(results, model, conditions) for model in models}
                curves = {model: points for model, points in drawn.items() if points}
                if curves:
                    found.append(Panel(dataset, attack.label, curves, known))
    return tuple(found)


def by_model(drawn: tuple[Panel, ...]) -> tuple[Panel, ...]:
    """Returns the curves of these panels in a panel for each dataset and model.

    >>> fgsm = Panel("mnist", "fgsm", {"maxout": (), "rbf": ()})
    >>> pgd = Panel("mnist", "pgd", {"maxout": ()})
    >>> [(each.attack, list(each.curves)) for each in by_model((fgsm, pgd))]
    [('maxout', ['fgsm', 'pgd']), ('rbf', ['fgsm'])]
    """
    turned: dict[tuple[str, str], Panel] = {}
    for each in drawn:
        for model, points in each.curves.items():
            panel = turned.setdefault((each.dataset, model), Panel(each.dataset, model, {}, {}))
            panel.curves[each.attack] = points
            if model in each.whole:
                panel.whole[each.attack] = each.whole[model]
    return tuple(turned.values())


def _curve(results: RunLookup, model: str, conditions: list[Condition]) -> tuple[Point, ...]:
    start = [Condition.unattacked(conditions[0].dataset)] if conditions[0].epsilon.value > 0 else []
    points = (
        Point(float(condition.epsilon), results.error(condition, model))
        for condition in [*start, *conditions]
    )
    return tuple(point for point in points if point.measured.rate is not None)
