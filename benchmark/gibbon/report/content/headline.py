"""The headline of a run: each model's worst case at the largest epsilon of each threat model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.flags import Flag, read_flags
from gibbon.records.run import Evaluation, WorstCase
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
from gibbon.report.content.number_format import count, percent, rate_cell
from gibbon.specs.suite import Experiment

_NOTES = (
    "Worst-case error: of all examples, those misclassified clean or by any candidate of any "
    "attack of the threat, with its Wilson 95 % interval; 1 − worst-case error is the robust "
    "accuracy. Shown at the largest ε of each norm and clipping rule. It is a lower bound on what "
    "an adversary can reach.",
    "Strongest attack: the one whose examples are misclassified most often, with its adversarial "
    "error over all examples; confidence is the mean over the examples misclassified under it.",
    "Flags and failed cells are counted for each model and listed at the top of this page.",
)
Threat = tuple[Norm, bool]


def headline_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each threat, at its largest epsilon, and model."""
    flags = read_flags(results.record)
    for experiment in results.experiments:
        yield Table.on(
            experiment.dataset.name,
            (
                Column("Model", "left"),
                Column("Clean error", bar=True),
                Column("Worst-case error", bar=True),
                *columns("Threat", "Strongest attack", align="left"),
                Column("Adversarial error", bar=True),
                Column("Confidence on misclassified"),
                *columns("Failed cells", "Flags", level=1),
            ),
            _rows(results, experiment, flags),
        )


HEADLINE = ChapterKind("Headline", headline_tables, _NOTES)


def _rows(results: RunLookup, experiment: Experiment, flags: Sequence[Flag]) -> Iterator[Row]:
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
            yield _row(results, experiment, model.name, text, worst, flags)
    if not largest:
        for model in experiment.models:
            yield _row(results, experiment, model.name, NOTHING, None, flags)


def _row(
    results: RunLookup,
    experiment: Experiment,
    model: str,
    threat: str | TableCell,
    worst: WorstCase | None,
    flags: Sequence[Flag],
) -> Row:
    dataset = experiment.dataset.name
    strongest = _strongest(results, worst) if worst is not None else None
    failed = sum(
        (each.dataset, each.model, each.status) == (dataset, model, "failed")
        for each in results.record.evaluations
    )
    flagged = sum((each.dataset, each.model) == (dataset, model) for each in flags)
    return cells(
        model,
        rate_cell(results.error(Condition.unattacked(dataset), model), clean=True),
        rate_cell(worst_case_error(worst)) if worst else _missing(results, experiment, model),
        threat,
        strongest.attack if strongest else NOTHING,
        percent(strongest.adversarial_error if strongest else None),
        percent(strongest.confidence_on_misclassified if strongest else None),
        count(failed or None),
        count(flagged or None),
    )


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
