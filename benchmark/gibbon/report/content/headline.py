"""The headline of a run: for each model the worst case under the largest epsilon of each threat."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.run import Evaluation, RunRecord, WorstCase
from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import Cut, Results, adversarial_error, clean_error
from gibbon.report.content.number_format import interval, percent
from gibbon.specs.suite import Experiment

HEADLINE = "Headline"
HEADLINE_NOTES = (
    "Worst-case error: of all examples, those misclassified clean or by any candidate of any "
    "attack of the threat, with its Wilson 95 % interval; 1 − worst-case error is the robust "
    "accuracy. Shown at the largest ε of each norm and clipping rule. It is a lower bound on what "
    "an adversary can reach.",
    "Strongest attack: the one whose examples are misclassified most often, with its adversarial "
    "error over all examples; confidence is the mean over the examples that it misled.",
    "Flags and failed cells are counted a model; they are told at the top of this page.",
)
Threat = tuple[Norm, bool]


def headline_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per threat and model, at the threat's largest epsilon."""
    for experiment in results.experiments:
        rows = tuple(_rows(results, experiment))
        yield Table(
            title=f"on {experiment.dataset.name}",
            columns=(
                Column("Model", "left"),
                Column("Clean error"),
                Column("Worst-case error"),
                Column("Threat", "left"),
                Column("Strongest attack", "left"),
                Column("Adversarial error"),
                Column("Confidence on misclassified"),
                Column("Failed cells", level=1),
                Column("Flags", level=1),
            ),
            rows=rows,
        )


def _rows(results: Results, experiment: Experiment) -> Iterator[tuple[Cell, ...]]:
    dataset = experiment.dataset.name
    found = [each for each in results.record.worst_cases if each.dataset == dataset]
    threats = _largest(found)
    for norm, clip in threats:
        epsilon = threats[norm, clip]
        for model in experiment.models:
            worst = next(
                (
                    each
                    for each in found
                    if (each.model, each.norm, each.clip) == (model.name, norm, clip)
                    and each.epsilon == epsilon
                ),
                None,
            )
            yield _row(results, experiment, model.name, (norm, clip), epsilon, worst)
    if not threats:
        for model in experiment.models:
            yield cells(
                model.name,
                _clean(results, dataset, model.name),
                _missing(results, experiment, model.name),
                NOTHING,
                *[NOTHING] * 3,
                *_trouble(results.record, dataset, model.name),
            )


def _largest(found: list[WorstCase]) -> dict[Threat, Epsilon]:
    largest: dict[Threat, Epsilon] = {}
    for each in found:
        threat = (each.norm, each.clip)
        if threat not in largest or each.epsilon > largest[threat]:
            largest[threat] = each.epsilon
    return largest


def _row(
    results: Results,
    experiment: Experiment,
    model: str,
    threat: Threat,
    epsilon: Epsilon,
    worst: WorstCase | None,
) -> tuple[Cell, ...]:
    norm, clip = threat
    dataset = experiment.dataset.name
    head = cells(model, _clean(results, dataset, model))
    words = f"{norm.symbol}, ε = {epsilon}, {'clipped' if clip else 'not clipped'}"
    trouble = _trouble(results.record, dataset, model)
    if worst is None:
        missing = _missing(results, experiment, model)
        return (*head, *cells(missing, words, *[NOTHING] * 3), *trouble)
    strongest = _strongest(results, worst)
    rate = worst.worst_case_error
    bounds = interval(worst.worst_case_error_low, worst.worst_case_error_high, rate=rate)
    return (
        *head,
        Cell(percent(rate), bounds),
        *cells(
            words,
            strongest.attack if strongest else NOTHING,
            percent(adversarial_error(strongest).rate if strongest else None),
            percent(strongest.confidence_on_misclassified if strongest else None),
        ),
        *trouble,
    )


def _strongest(results: Results, worst: WorstCase) -> Evaluation | None:
    done = [
        found
        for attack in worst.attacks
        if (found := results.evaluation(Cut(worst.dataset, attack, worst.epsilon), worst.model))
        and found.adversarial_error is not None
    ]
    return max(done, key=lambda each: each.adversarial_error or 0.0, default=None)


def _clean(results: Results, dataset: str, model: str) -> Cell:
    found = results.clean(dataset, model)
    if found is None:
        return Cell(NOT_RUN)
    measured = clean_error(found)
    if measured.state != "done":
        return Cell(FAILED)
    return Cell(
        percent(measured.rate, clean=True),
        interval(measured.low, measured.high, rate=measured.rate, clean=True),
    )


def _missing(results: Results, experiment: Experiment, model: str) -> str:
    """Returns why a model has no worst case."""
    if not experiment.attacks:
        return NOTHING
    failed = any(
        (each.dataset, each.model) == (experiment.dataset.name, model)
        for each in results.record.failures
    ) or any(results.state(cut, model) == "failed" for cut in results.cuts(experiment))
    return FAILED if failed else NOT_RUN


def _trouble(record: RunRecord, dataset: str, model: str) -> tuple[Cell, Cell]:
    failed = sum(
        (each.dataset, each.model, each.status) == (dataset, model, "failed")
        for each in record.evaluations
    )
    flags = sum(
        flag.startswith((f"{dataset}, {model}, ", f"{dataset}, {model}:")) for flag in record.flags
    )
    return Cell(str(failed) if failed else NOTHING), Cell(str(flags) if flags else NOTHING)
