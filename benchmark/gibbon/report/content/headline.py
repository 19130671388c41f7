"""The headline of a run: each model's worst case at the largest epsilon of each threat model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.flag_kinds import SEVERITIES
from gibbon.records.run import Evaluation, WorstCase
from gibbon.report.content.certified import certified_cells, certified_columns, certified_notes
from gibbon.report.content.layout import (
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
from gibbon.report.content.lookup import Condition, RunLookup, worst_case_error
from gibbon.report.content.model_comparison import comparison_notes
from gibbon.report.content.number_format import count, percent, rate_cell
from gibbon.specs.suite import Experiment

_NOTES = (
    "Worst-case error: of all examples, those misclassified clean or by any candidate of any "
    "attack of the threat, with its Wilson 95 % interval; 1 − worst-case error is the robust "
    "accuracy. Shown at the largest ε of each norm and clipping rule. It is a lower bound on what "
    "an adversary can reach.",
    "Strongest attack: the one whose examples are misclassified most often, with its adversarial "
    "error over all examples; confidence is the mean over the examples misclassified under it.",
    "Failed cells, and flags by severity, are counted for each model and listed at the top of this "
    "page; accepted ones are those for which the user takes responsibility.",
)
Threat = tuple[Norm, bool]


def headline_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each threat, at its largest epsilon, and model."""
    for experiment in results.experiments:
        yield Table.on(
            experiment.dataset.name,
            (
                Column("Model", "left"),
                Column("Clean error", bar=True),
                Column("Worst-case error", bar=True),
                *certified_columns(results, experiment, bar=True),
                *columns("Threat", "Strongest attack", align="left"),
                Column("Adversarial error", bar=True),
                Column("Confidence on misclassified"),
                Column("Failed cells", level=1),
                Column("Flags", "left", level=1),
            ),
            _rows(results, experiment),
            notes=(
                *comparison_notes(results, experiment),
                *certified_notes(results, experiment),
            ),
        )


HEADLINE = ChapterKind("Headline", headline_tables, _NOTES)


def _rows(results: RunLookup, experiment: Experiment) -> Iterator[Row]:
    dataset = experiment.dataset.name
    found = [each for each in results.record.worst_cases if each.dataset == dataset]
    largest: dict[Threat, Epsilon] = {}
    for each in found:
        threat = (each.norm, each.clip)
        largest[threat] = max(each.epsilon, largest.get(threat, each.epsilon))
    worst_cases = {(each.model, each.norm, each.clip, each.epsilon): each for each in found}
    for (norm, clip), epsilon in largest.items():
        text = f"{norm.symbol}, ε = {epsilon}, {'clipped' if clip else 'not clipped'}"
        for model in experiment.models:
            worst = worst_cases.get((model.name, norm, clip, epsilon))
            yield _row(results, experiment, model.name, text, worst)
    if not largest:
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
    strongest = _strongest(results, worst) if worst is not None else None
    failed = sum(
        (each.dataset, each.model, each.status) == (dataset, model, "failed")
        for each in results.record.evaluations
    )
    unattacked = Condition.unattacked(dataset)
    missing = _missing(results, experiment, model)
    doubts = results.flags(strongest)
    return cells(
        model,
        rate_cell(results.error(unattacked, model), clean=True),
        rate_cell(worst_case_error(worst)).flagged(results.flags(worst)) if worst else missing,
        *certified_cells(worst, results, experiment),
        threat,
        strongest.attack if strongest else NOTHING,
        percent(strongest.adversarial_error if strongest else None).flagged(doubts),
        percent(strongest.confidence_on_misclassified if strongest else None).flagged(doubts),
        count(failed or None),
        _flag_count(results, dataset, model),
    )


def _flag_count(results: RunLookup, dataset: str, model: str) -> TableCell:
    """Returns the number of flags about a model, by severity."""
    found = Counter(
        "accepted" if each.accepted else each.severity
        for each in results.record.flags
        if (each.dataset, each.model) == (dataset, model)
    )
    words = [f"{found[word]:,} {word}" for word in (*SEVERITIES, "accepted") if found[word]]
    return TableCell(", ".join(words), kind="flags") if words else NOTHING


def _strongest(results: RunLookup, worst: WorstCase) -> Evaluation | None:
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
