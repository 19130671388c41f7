"""The headline of a run: each model's worst case at one epsilon of each threat model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.flag_kinds import SEVERITIES
from gibbon.records.run import Evaluation, WorstCase
from gibbon.report.content.parts.layout import (
    FAILED,
    NOT_RUN,
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import (
    Condition,
    RunLookup,
    robust_accuracy,
    worst_case_error,
)
from gibbon.report.content.parts.number_format import count, percent, rate_cell
from gibbon.report.content.tables.certified import (
    certified_cells,
    certified_columns,
    certified_notes,
)
from gibbon.report.content.tables.model_comparison import comparison_notes
from gibbon.specs.customary import customary_epsilon
from gibbon.specs.suite import Experiment

_NOTES = (
    "Robust accuracy: of all n examples, those classified correctly clean and at every candidate "
    "of every attack of the threat, with its Wilson 95 % interval; it is 1 − worst-case error, and "
    "an upper bound of what a stronger adversary would leave. Shown, for each norm and clipping "
    "rule, at the ε that the suite names in `headline`, else at the dataset's customary ε, else, "
    "if that was not measured, at the largest.",
    "Strongest attack: the one whose examples are misclassified most often, with its adversarial "
    "error over all examples; confidence is the mean over the examples misclassified under it.",
    "Failed cells, and flags by severity, are counted for each model and listed under failures "
    "and flags; accepted ones are those for which the user takes responsibility.",
)


@dataclass(frozen=True)
class HeadlineThreat:
    """A norm and a clipping rule at the epsilon that the headline is about."""

    norm: Norm
    clip: bool
    epsilon: Epsilon

    def __str__(self) -> str:
        rule = "clipped" if self.clip else "not clipped"
        return f"{self.norm.symbol}, ε = {self.epsilon}, {rule}"


def headline_threats(
    experiment: Experiment, worst_cases: Iterable[WorstCase]
) -> tuple[HeadlineThreat, ...]:
    """Returns what the headline of an experiment is about: some epsilons of each norm and rule.

    They are those that the suite names in ``headline``; else the dataset's customary one; else, if
    that was not measured, the largest.

    Args:
        experiment: the experiment in the suite.
        worst_cases: the worst cases of its dataset.
    """
    measured: dict[tuple[Norm, bool], set[Epsilon]] = {}
    for each in worst_cases:
        measured.setdefault((each.norm, each.clip), set()).add(each.epsilon)
    return tuple(
        HeadlineThreat(norm, clip, epsilon)
        for (norm, clip), epsilons in measured.items()
        for epsilon in _shown(experiment, norm, epsilons)
    )


def _shown(experiment: Experiment, norm: Norm, measured: set[Epsilon]) -> list[Epsilon]:
    named = [each for each in experiment.headline if each in measured]
    if named:
        return named
    data = experiment.dataset
    for name in (data.source, data.name):
        customary, known = customary_epsilon(name, norm)
        if known and Epsilon.parse(customary) in measured:
            return [Epsilon.parse(customary)]
    return [max(measured)]


def headline_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each threat, at its largest epsilon, and model."""
    for experiment in results.experiments:
        dataset = experiment.dataset.name
        found = [each for each in results.record.worst_cases if each.dataset == dataset]
        threats = headline_threats(experiment, found)
        yield Table.on(
            dataset,
            (
                Column("Model", "left"),
                Column("Robust accuracy", bar=True, detailed=True),
                Column("n"),
                Column("Clean error", bar=True),
                Column("Worst-case error", bar=True),
                *certified_columns(results, experiment, bar=True),
                *columns("Threat", "Strongest attack", align="left"),
                Column("Adversarial error", bar=True),
                Column("Confidence on misclassified"),
                Column("Failed cells", level=1),
                Column("Flags", "left", level=1),
            ),
            _rows(results, experiment, found, threats),
            notes=(
                *comparison_notes(
                    results, experiment, [(each.norm, each.clip, each.epsilon) for each in threats]
                ),
                *certified_notes(results, experiment),
            ),
        )


HEADLINE = ChapterKind("Headline", headline_tables, _NOTES)


def _rows(
    results: RunLookup,
    experiment: Experiment,
    found: Iterable[WorstCase],
    threats: Iterable[HeadlineThreat],
) -> Iterator[Row]:
    worst_cases = {(each.model, each.norm, each.clip, each.epsilon): each for each in found}
    for threat in threats:
        for model in experiment.models:
            worst = worst_cases.get((model.name, threat.norm, threat.clip, threat.epsilon))
            yield _row(results, experiment, model.name, str(threat), worst)
    if not threats:
        for model in experiment.models:
            yield _row(results, experiment, model.name, NOTHING, None)


def _row(
    results: RunLookup,
    experiment: Experiment,
    model: str,
    threat: str | TableCell,
    worst: WorstCase | None,
) -> Row:
    dataset = experiment.dataset.name
    best = strongest(results, worst) if worst is not None else None
    failed = results.failed_cells[dataset, model]
    unattacked = Condition.unattacked(dataset)
    missing = _missing(results, experiment, model)
    doubts = results.flags(best)
    return cells(
        model,
        rate_cell(robust_accuracy(worst)).flagged(results.flags(worst)) if worst else missing,
        count(worst.examples if worst else None),
        rate_cell(results.error(unattacked, model), clean=True),
        rate_cell(worst_case_error(worst)).flagged(results.flags(worst)) if worst else missing,
        *certified_cells(worst, results, experiment),
        threat,
        best.attack if best else NOTHING,
        percent(best.adversarial_error if best else None).flagged(doubts),
        percent(best.confidence_on_misclassified if best else None).flagged(doubts),
        count(failed or None),
        _flag_count(results, dataset, model),
    )


def _flag_count(results: RunLookup, dataset: str, model: str) -> TableCell:
    """Returns the number of flags about a model, by severity."""
    found = Counter(
        "accepted" if each.accepted else each.severity
        for each in results.flags_of_model.get((dataset, model), ())
    )
    words = [f"{found[word]:,} {word}" for word in (*SEVERITIES, "accepted") if found[word]]
    return TableCell(", ".join(words), kind="flags") if words else NOTHING


def strongest(results: RunLookup, worst: WorstCase) -> Evaluation | None:
    """Returns the evaluation of the attack that found most errors, or None if there is none."""
    conditions = (Condition(worst.dataset, attack, worst.epsilon) for attack in worst.attacks)
    found = (results.evaluation(condition, worst.model) for condition in conditions)
    done = [each for each in found if each and each.adversarial_error is not None]
    return max(done, key=lambda each: each.adversarial_error or 0.0, default=None)


def _missing(results: RunLookup, experiment: Experiment, model: str) -> TableCell:
    """Returns why a model has no worst case."""
    if not experiment.attacks:
        return NOTHING
    failed = any(
        (each.dataset, each.model) == (experiment.dataset.name, model)
        for each in results.record.failures
    ) or any(
        results.state(condition, model) == "failed" for condition in results.conditions(experiment)
    )
    return FAILED if failed else NOT_RUN
