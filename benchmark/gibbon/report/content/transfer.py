"""Tables of transfer between models, and of agreement on the wrong class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gibbon.records.run import Transfer
from gibbon.report.content.layout import ChapterKind, Column, Row, Table, TableCell, cells, columns
from gibbon.report.content.lookup import (
    Condition,
    Measured,
    RunLookup,
    adversarial_error,
    error_given_source,
    same_class_given_both,
    same_class_given_source,
    transfer_error,
)
from gibbon.report.content.number_format import (
    count,
    interval,
    rate_alone,
    rate_cell,
    share,
    state_cell,
)
from gibbon.report.content.table_parts import _condition_notes
from gibbon.specs.suite import Experiment

_DIAGONAL = "†"

_TRANSFER_NOTES = (
    "Rows are the models that the examples were made on (sources), columns the models that they "
    f"were scored on (targets); {_DIAGONAL} if both are the same model. In brackets: the Wilson "
    "95 % interval. Second column: the number of examples that the rates of its row are shares of.",
    "Error: misclassified by the target, of all examples. Given that the source misclassifies: of "
    "the examples that the source misclassifies. Same wrong class: the target gives the wrong "
    "class that the source gives. Given that both misclassify: of the examples that both "
    "misclassify, whose number is in each cell.",
)
_AGREEMENT_NOTES = (
    "Of one source's examples that both targets misclassify, the share to which they give the same "
    "wrong class.",
)


@dataclass(frozen=True)
class Matrix:
    """One kind of transfer matrix: its rates, and the examples that they are shares of."""

    name: str
    title: str
    cell: Callable[[Transfer], Measured]
    of: str


MATRICES = (
    Matrix("error", "error", transfer_error, "Examples"),
    Matrix(
        "error_given_source_misclassified",
        "error, given that the source misclassifies",
        error_given_source,
        "Source misclassified",
    ),
    Matrix(
        "same_class_given_source_misclassified",
        "same wrong class, given that the source misclassifies",
        same_class_given_source,
        "Source misclassified",
    ),
    Matrix(
        "same_class_given_both_misclassified",
        "same wrong class, given that both misclassify",
        same_class_given_both,
        "Source misclassified",
    ),
)


def transfer_tables(results: RunLookup, *, only_error: bool = False) -> Iterator[Table]:
    """Yields the transfer matrices: rows are sources, columns targets."""
    for experiment in results.experiments:
        for condition in results.transfer_conditions(experiment):
            for matrix in MATRICES[:1] if only_error else MATRICES:
                yield _transfer_table(results, experiment, condition, matrix)


TRANSFER = ChapterKind("Transfer", transfer_tables, _TRANSFER_NOTES)


def _transfer_table(
    results: RunLookup, experiment: Experiment, condition: Condition, matrix: Matrix
) -> Table:
    models = [model.name for model in experiment.models]
    return Table.on(
        condition.dataset,
        (
            Column("Source ↓ target →", "left"),
            Column(matrix.of),
            *(Column(model) for model in models),
        ),
        (
            cells(
                source,
                _denominator(results, condition, source, matrix),
                *(_transfer_cell(results, condition, source, target, matrix) for target in models),
            )
            for source in models
        ),
        detail=f", {condition}: {matrix.title}",
        notes=_condition_notes(results, experiment, condition),
    )


def _denominator(
    results: RunLookup, condition: Condition, source: str, matrix: Matrix
) -> TableCell:
    found = results.evaluation(condition, source)
    if found is None or found.status == "failed":
        return state_cell(results.state(condition, source))
    return count(found.examples if matrix.of == "Examples" else found.misclassified)


def _transfer_cell(
    results: RunLookup, condition: Condition, source: str, target: str, matrix: Matrix
) -> TableCell:
    mark = f" {_DIAGONAL}" if source == target else ""
    measured = transferred(results, condition, source, target, matrix)
    cell = rate_cell(measured)
    detail = cell.detail
    if matrix.cell is same_class_given_both and measured.whole is not None:
        detail = f"{detail} of {count(measured.whole)}".strip()
    return replace(cell, text=cell.text + mark, detail=detail)


def transferred(
    results: RunLookup, condition: Condition, source: str, target: str, matrix: Matrix
) -> Measured:
    """Returns the rate of one source and target in a transfer matrix."""
    found = results.transfer(condition, source, target)
    if found is not None:
        return matrix.cell(found)
    own = results.evaluation(condition, source) if source == target else None
    if own is None:
        return results.absent(condition, source)
    if own.status == "failed" or matrix.cell is transfer_error:
        return adversarial_error(own)
    whole = own.misclassified  # always 1, given that the source misclassifies
    return Measured("done", 1.0 if whole else None, part=whole, whole=whole)


def agreement_tables(results: RunLookup) -> Iterator[Table]:
    """Yields how often two targets give the same wrong class on the examples of one source."""
    for experiment in results.experiments:
        for condition in results.transfer_conditions(experiment):
            rows = tuple(_agreement_rows(results, condition))
            if rows:
                yield Table.on(
                    condition.dataset,
                    (
                        *columns("Source", "Targets", align="left"),
                        *columns("Same wrong class", "95 % interval", "of both misclassified"),
                    ),
                    rows,
                    detail=f", {condition}",
                    notes=_condition_notes(results, experiment, condition),
                )


AGREEMENT = ChapterKind("Agreement between targets", agreement_tables, _AGREEMENT_NOTES)


def _agreement_rows(results: RunLookup, condition: Condition) -> Iterator[Row]:
    for each in results.record.agreements:
        if Condition(each.dataset, each.attack, each.epsilon) == condition:
            found = same_class_given_both(each)
            yield cells(
                each.source,
                f"{each.first}, {each.second}",
                rate_alone(found),
                interval(found),
                share(found.part, found.whole) if found.part is not None else count(found.whole),
            )
