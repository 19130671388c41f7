"""Compares the models of an experiment: in pairs on the same examples, and over training seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gibbon.metrics.paired_tests import examples_needed, holm, mcnemar
from gibbon.metrics.rates import Flags
from gibbon.records.run import Evaluation, ModelComparison, SeedStatistics
from gibbon.runner.counting.count import Outcomes, Threat, WorstErrors, worst_errors
from gibbon.runner.plan.planned import PlannedExperiment

ALPHA = 0.05  # of all pairs of models under one threat model together
MEASURES = (
    "adversarial_error",
    "worst_case_error",
    "confidence_on_misclassified",
    "mean_confidence",
)


def model_comparisons(
    experiment: PlannedExperiment, outcomes: Outcomes
) -> Iterator[ModelComparison]:
    """Yields a row for every two models and threat model that both have the same attacks under."""
    by_threat: dict[Threat, list[WorstErrors]] = {}
    for worst in worst_errors(experiment, outcomes):
        by_threat.setdefault(worst.threat, []).append(worst)
    for threat, found in by_threat.items():
        pairs = [_ModelPair(*pair) for pair in combinations(found, 2) if _attacked_alike(*pair)]
        p_values = holm([mcnemar(each.only_first, each.only_second) for each in pairs])
        for pair, p_value in zip(pairs, p_values, strict=True):
            yield pair.row(experiment.spec.dataset.name, threat, p_value, pairs=len(pairs))


def _attacked_alike(first: WorstErrors, second: WorstErrors) -> bool:
    one, other = ([cell.label for cell in each.cells] for each in (first, second))
    return one == other


@dataclass(frozen=True)
class _ModelPair:
    """The errors of two models under one threat model, on the same examples."""

    first: WorstErrors
    second: WorstErrors

    @property
    def only_first(self) -> int:
        """The number of examples that the first model alone misclassifies."""
        return _alone(self.first.wrong, self.second.wrong)

    @property
    def only_second(self) -> int:
        """The number of examples that the second model alone misclassifies."""
        return _alone(self.second.wrong, self.first.wrong)

    def row(self, dataset: str, threat: Threat, p_value: float, *, pairs: int) -> ModelComparison:
        """Returns the row of the pair, given its corrected p-value."""
        one, other, total = self.only_first, self.only_second, len(self.first.wrong)
        better = self.first.model if one < other else self.second.model
        apart = p_value < ALPHA
        norm, epsilon, clip = threat
        return ModelComparison(
            dataset=dataset,
            first=self.first.model,
            second=self.second.model,
            norm=norm,
            epsilon=epsilon,
            clip=clip,
            examples=total,
            first_error=float(np.mean(self.first.wrong)),
            second_error=float(np.mean(self.second.wrong)),
            only_first=one,
            only_second=other,
            p_value=p_value,
            more_robust=better if apart else "",
            examples_needed=None
            if apart
            else examples_needed(one, other, total, alpha=ALPHA / pairs),
        )


def _alone(one: Flags, other: Flags) -> int:
    return int(np.count_nonzero(one & ~other))


def seed_statistics(
    experiment: PlannedExperiment, rows: Iterable[Evaluation]
) -> Iterator[SeedStatistics]:
    """Yields a row for every group of models that differ in their training seed, and attack.

    Groups are named by ``seeds_of`` in the suite.  A group of which a model failed under an attack
    has no row for it: the mean would be that of the models that did not.
    """
    groups: dict[str, list[str]] = {}
    for model in experiment.spec.models:
        if model.seeds_of is not None:
            groups.setdefault(model.seeds_of, []).append(model.name)
    found: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for row in rows:
        if row.status == "done":
            found.setdefault((row.attack, str(row.epsilon.value)), {})[row.model] = row
    for group, models in groups.items():
        for by_model in found.values():
            if by_model.keys() >= set(models):
                yield _seed_row(group, models, by_model)


def _seed_row(group: str, models: Sequence[str], rows: Mapping[str, Evaluation]) -> SeedStatistics:
    own = [rows[model] for model in models]
    columns: dict[str, object] = {}
    for measure in MEASURES:
        values = [value for row in own if (value := getattr(row, measure)) is not None]
        if len(values) == len(own):
            mean, spread = mean_and_spread(values)
            columns |= {f"{measure}_mean": mean, f"{measure}_sd": spread}
    fixed = {"attack": own[0].attack, "epsilon": own[0].epsilon, "dataset": own[0].dataset}
    return SeedStatistics.model_validate(
        {**fixed, "seeds_of": group, "n": len(own), "models": tuple(models), **columns}
    )


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean and the standard deviation (with n - 1), None for one value.

    >>> mean_and_spread([0.25, 0.5, 0.75])
    (0.5, 0.25)
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1))
