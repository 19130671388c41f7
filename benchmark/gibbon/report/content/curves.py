"""Error against epsilon: which curves there are to draw, and their points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gibbon.metrics.nearest import Curve
from gibbon.records.run import RunRecord
from gibbon.report.content.distance_curves import WholeCurves
from gibbon.report.content.lookup import Cut, Measured, Results, adversarial_error, clean_error

_NONE: Final[WholeCurves] = {}

# A whole curve is drawn to where it has risen this far, or to the largest epsilon asked.
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Point:
    """A point of an error curve: ``epsilon`` in the input's units, and the measured rate."""

    epsilon: float
    measured: Measured


@dataclass(frozen=True)
class Panel:
    """The curves of one attack on one dataset: the points of each model that has any.

    Of `by_model` it is the other way round: ``attack`` is what one model is called, and the curves
    go by attack.  ``whole`` holds the curves that are known at every epsilon.
    """

    dataset: str
    attack: str
    curves: dict[str, tuple[Point, ...]]
    whole: dict[str, Curve] = field(default_factory=dict, repr=False)

    @property
    def end(self) -> float:
        """The epsilon that the curves are drawn to."""
        ends = [point.epsilon for points in self.curves.values() for point in points]
        for curve in self.whole.values():
            if len(curve.errors):
                reached = int(np.searchsorted(curve.errors, _NEARLY_ALL * curve.errors[-1]))
                ends.append(float(curve.epsilons[reached]))
        return max(ends, default=0.0)


def panels(record: RunRecord, *, whole: WholeCurves = _NONE) -> tuple[Panel, ...]:
    """Returns what there is to draw: attacks that were made at two epsilons or more, or at all."""
    results = Results(record)
    found = []
    for experiment in results.experiments:
        for attack in experiment.attacks:
            known = {
                model.name: whole[key]
                for model in experiment.models
                if (key := (experiment.dataset.name, model.name, attack.label)) in whole
            }
            if len(attack.epsilon) > 1 or known:
                cuts = [
                    Cut(experiment.dataset.name, attack.label, each)
                    for each in sorted(attack.epsilon)
                ]
                curves = {
                    model.name: points
                    for model in experiment.models
                    if (points := _curve(results, model.name, cuts))
                }
                if curves:
                    found.append(Panel(experiment.dataset.name, attack.label, curves, known))
    return tuple(found)


def by_model(drawn: tuple[Panel, ...]) -> tuple[Panel, ...]:
    """Returns a panel for each dataset and model, with a curve for each attack.

    >>> fgsm = Panel("mnist", "fgsm", {"maxout": (), "rbf": ()})
    >>> pgd = Panel("mnist", "pgd", {"maxout": ()})
    >>> [(each.attack, list(each.curves)) for each in by_model((fgsm, pgd))]
    [('maxout', ['fgsm', 'pgd']), ('rbf', ['fgsm'])]
    """
    places = dict.fromkeys((each.dataset, model) for each in drawn for model in each.curves)
    return tuple(
        Panel(
            dataset,
            model,
            {
                each.attack: each.curves[model]
                for each in drawn
                if each.dataset == dataset and model in each.curves
            },
            {
                each.attack: each.whole[model]
                for each in drawn
                if each.dataset == dataset and model in each.whole
            },
        )
        for dataset, model in places
    )


def _curve(results: Results, model: str, cuts: list[Cut]) -> tuple[Point, ...]:
    found = [
        Point(float(cut.epsilon), adversarial_error(evaluation))
        for cut in cuts
        if (evaluation := results.evaluation(cut, model)) is not None
    ]
    unattacked = results.clean(cuts[0].dataset, model)
    if unattacked is not None and cuts[0].epsilon.value > 0:
        found.insert(0, Point(0.0, clean_error(unattacked)))
    return tuple(point for point in found if point.measured.rate is not None)
