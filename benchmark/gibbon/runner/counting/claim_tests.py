"""Tests the claims of a suite on the outcomes of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gibbon.metrics.order_tests import OrderTest, TrainingValues, compare_measures
from gibbon.metrics.paired_tests import holm
from gibbon.metrics.rates import Flags
from gibbon.records.outcomes import Outcome
from gibbon.records.tested_claims import ClaimTest
from gibbon.runner.no_class.count_no_class import observed_claims
from gibbon.runner.plan.load_model import LoadedModel
from gibbon.runner.plan.planned import Cell, Plan, PlannedExperiment
from gibbon.runner.run_folder import RunFolder
from gibbon.specs.base import UNATTACKED
from gibbon.specs.claims import Claim, MeasuredQuantity
from gibbon.specs.published import NO_CLASS_MEASURES

CLEAN_MEASURES = ("clean_error",)


def claim_tests(plan: Plan, folder: RunFolder) -> Iterator[ClaimTest]:
    """Yields the test of every claim whose measures were both taken, in the suite's order.

    p-values are corrected by Holm's procedure over them.
    """
    observations = _Observations(plan, folder)
    tested: list[tuple[Claim, _Side, _Side | None, OrderTest]] = []
    for claim in plan.suite.claims:
        first = observations.side(claim.first)
        second = None if claim.second is None else observations.side(claim.second)
        if first is None or (second is None and claim.second is not None):
            continue
        paired = second is not None and first.data == second.data
        others = claim.constant if second is None else second.observed
        found = compare_measures(first.observed, 0.0 if others is None else others, paired=paired)
        if found is not None:
            tested.append((claim, first, second, found))
    p_values = holm([found.p_value for *_, found in tested])
    for (claim, first, second, found), p_value in zip(tested, p_values, strict=True):
        yield ClaimTest(
            id=claim.id,
            order=claim.order,
            examples=len(first.observed[0].values),
            first=found.first,
            second=found.second,
            first_trainings=len(first.observed),
            second_trainings=0 if second is None else len(second.observed),
            difference=found.difference,
            difference_low=found.interval.low,
            difference_high=found.interval.high,
            test=found.test,
            p_value=p_value,
            models=tuple(dict.fromkeys(first.models + (second.models if second else ()))),
        )


@dataclass(frozen=True)
class _Side:
    """A measure in each training: the digest of its examples, the models, and the values."""

    data: str
    models: tuple[str, ...]
    observed: tuple[TrainingValues, ...]


class _Observations:
    """The measures of a run's models, by example."""

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self._experiments = {each.spec.dataset.name: each for each in plan.all_experiments}
        self._folder = folder
        self._read = lru_cache(maxsize=8)(folder.read)

    def side(self, quantity: MeasuredQuantity) -> _Side | None:
        """Returns a measure in each of its trainings; None if one of them lacks it.

        With several sources and several targets, the first source is taken with the first target,
        the second with the second, and so on; the shorter list starts again at its end.
        """
        experiment = self._experiments.get(quantity.dataset)
        if experiment is None:
            return None
        named = (quantity.model, quantity.target, quantity.compared_with)
        groups = [experiment.spec.trainings_of(name) for name in named if name is not None]
        if not all(groups):
            return None
        count = max(map(len, groups))
        models = {model.name: model for model in experiment.models}
        observed = []
        for place in range(count):
            members = [models.get(group[place % len(group)]) for group in groups]
            if None in members:
                return None
            found = self._observed(experiment, quantity, [each for each in members if each])
            if found is None:
                return None
            observed.append(found)
        names = tuple(dict.fromkeys(name for group in groups for name in group))
        return _Side(experiment.data_digest, names, tuple(observed))

    def _observed(
        self,
        experiment: PlannedExperiment,
        quantity: MeasuredQuantity,
        models: Sequence[LoadedModel],
    ) -> TrainingValues | None:
        if quantity.measure in NO_CLASS_MEASURES:
            if not experiment.spec.no_class:
                return None
            answers = observed_claims(experiment, models[0], self._folder)
            if answers is None:
                return None
            positive, confidence = answers
            if quantity.measure == "false_positive_rate":
                return _share(positive)
            return TrainingValues(confidence, positive)
        clean = quantity.measure in CLEAN_MEASURES
        cell = _cell(experiment, models[0], quantity, unattacked=clean)
        outcome = None if cell is None else self._read(cell.digest)
        if outcome is None or any(model.digest not in outcome.scores for model in models):
            return None
        unattacked = _cell(experiment, models[0], quantity, unattacked=True)
        before = None if unattacked is None else self._read(unattacked.digest)
        return _measure(quantity, outcome, before, models)


def _cell(
    experiment: PlannedExperiment, source: LoadedModel, of: MeasuredQuantity, *, unattacked: bool
) -> Cell | None:
    """Returns the cell of a source under the quantity's attack, or its unattacked one."""
    for cell in experiment.cells_of(source):
        if cell.attack is None and (unattacked or of.attack == UNATTACKED):
            return cell
        if not unattacked and cell.label == of.attack and cell.epsilon == of.epsilon:
            return cell
    return None


def _measure(
    quantity: MeasuredQuantity,
    outcome: Outcome,
    unattacked: Outcome | None,
    models: Sequence[LoadedModel],
) -> TrainingValues | None:
    """Returns the values of a measure by example, from the outcome of its cell."""
    source, target = models[0].digest, models[-1].digest
    measure = quantity.measure
    if measure in ("clean_error", "adversarial_error", "transfer_error"):
        values = outcome.wrong_share(target)
        return TrainingValues(values, np.ones(len(values), dtype=np.bool_))
    if measure == "worst_case_error":
        if unattacked is None:
            return None
        return _share(unattacked.misclassified(source) | outcome.any_misclassified)
    if measure in ("mean_confidence", "confidence_on_misclassified"):
        confidence = outcome.scores[source].confidence.astype(np.float64)
        wrong = outcome.misclassified(source)
        return TrainingValues(
            confidence, wrong if measure != "mean_confidence" else np.ones_like(wrong)
        )
    pair = models[1:] if quantity.compared_with is not None else models
    first, second = (outcome.scores[each.digest].predicted for each in pair)
    wrong = outcome.misclassified(pair[0].digest)
    both = wrong & outcome.misclassified(pair[1].digest)
    if measure == "same_class_given_source_misclassified":
        same = (first == second) & both  # a target that gives the wrong class is wrong itself
        return TrainingValues(same.astype(np.float64), wrong)
    return TrainingValues((first == second).astype(np.float64), both)


def _share(which: Flags) -> TrainingValues:
    return TrainingValues(which.astype(np.float64), np.ones(len(which), dtype=np.bool_))
