"""Tables of transfer between models, and of agreement on the wrong class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from gibbon.records.run import Transfer
from gibbon.report.content.parts.layout import (
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
    Measured,
    RunLookup,
    adversarial_error,
    error_given_source,
    same_class_given_both,
    same_class_given_source,
    transfer_error,
)
from gibbon.report.content.parts.number_format import (
    count,
    count_of,
    interval,
    rate_alone,
    rate_cell,
    state_cell,
)
from gibbon.report.content.parts.table_parts import attack_notes
from gibbon.report.file_names import AGREEMENT_FILE, TRANSFER_FILE
from gibbon.specs.suite import Experiment

_DIAGONAL = "†"
FEWEST: Final = 20  # examples that a rate must be of for a table to be made of such rates

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
class MatrixKind:
    """A kind of transfer matrix: its rates, and the examples that they are shares of."""

    name: str
    title: str
    cell: Callable[[Transfer], Measured]
    of: str


MATRICES = (
    MatrixKind("error", "error", transfer_error, "Examples"),
    MatrixKind(
        "error_given_source_misclassified",
        "error, given that the source misclassifies",
        error_given_source,
        "Source misclassified",
    ),
    MatrixKind(
        "same_class_given_source_misclassified",
        "same wrong class, given that the source misclassifies",
        same_class_given_source,
        "Source misclassified",
    ),
    MatrixKind(
        "same_class_given_both_misclassified",
        "same wrong class, given that both misclassify",
        same_class_given_both,
        "Source misclassified",
    ),
)


@dataclass(frozen=True)
class Matrix:
    """A transfer matrix of one attack at one epsilon; ``rates`` are by source and target."""

    kind: MatrixKind
    condition: Condition
    models: tuple[str, ...]
    rates: Mapping[tuple[str, str], Measured]


def matrices(
    results: RunLookup, experiment: Experiment, condition: Condition
) -> tuple[Matrix, ...]:
    """Returns the matrices of one attack at one epsilon, in the order of `MATRICES`."""
    models = tuple(model.name for model in experiment.models)
    pairs = tuple(product(models, models))
    return tuple(
        Matrix(
            kind,
            condition,
            models,
            {pair: _transferred(results, condition, *pair, kind) for pair in pairs},
        )
        for kind in MATRICES
    )


def transfer_tables(results: RunLookup, *, only_error: bool = False) -> Iterator[Table]:
    """Yields the transfer matrices: rows are sources, columns targets."""
    for experiment in results.experiments:
        for condition in results.transfer_conditions(experiment):
            notes = tuple(_notes(results, experiment, condition))
            for matrix in matrices(results, experiment, condition)[: 1 if only_error else None]:
                yield Table.on(
                    condition.dataset,
                    (
                        Column("Source ↓ target →", "left"),
                        *columns(matrix.kind.of, *matrix.models),
                    ),
                    (
                        cells(
                            source,
                            _denominator(results, matrix, source),
                            *(_transfer_cell(matrix, source, target) for target in matrix.models),
                        )
                        for source in matrix.models
                    ),
                    detail=f", {condition}: {matrix.kind.title}",
                    notes=notes,
                    collapsed=_collapsed(matrix.rates.values(), TRANSFER_FILE),
                )


def _collapsed(rates: Iterable[Measured], file: str) -> str:
    """Returns a sentence in place of a table all of whose rates are of few examples."""
    wholes = [each.whole for each in rates if each.whole is not None]
    if not wholes or max(wholes) >= FEWEST:
        return ""
    return (
        f"no table, because its rates are of fewer than {FEWEST} examples (at most "
        f"{max(wholes)}); they are in {file}."
    )


TRANSFER = ChapterKind("Transfer", transfer_tables, _TRANSFER_NOTES)


def _denominator(results: RunLookup, matrix: Matrix, source: str) -> TableCell:
    found = results.evaluation(matrix.condition, source)
    if found is None or found.status == "failed":
        return state_cell(results.state(matrix.condition, source))
    return count(found.examples if matrix.kind.of == "Examples" else found.misclassified)


def _transfer_cell(matrix: Matrix, source: str, target: str) -> TableCell:
    mark = f" {_DIAGONAL}" if source == target else ""
    measured = matrix.rates[source, target]
    cell = rate_cell(measured)
    detail = cell.detail
    if matrix.kind.cell is same_class_given_both and measured.whole is not None:
        detail = f"{detail} of {count(measured.whole)}".strip()
    return replace(cell, text=cell.text + mark, detail=detail)


def _transferred(
    results: RunLookup, condition: Condition, source: str, target: str, kind: MatrixKind
) -> Measured:
    found = results.transfer(condition, source, target)
    if found is not None:
        return replace(kind.cell(found), flags=results.flags(found))
    own = results.evaluation(condition, source) if source == target else None
    if own is None:
        return results.absent(condition, source)
    whole = own.misclassified
    measured = Measured("done", 1.0 if whole else None, part=whole, whole=whole)
    if own.status == "failed" or kind.cell is transfer_error:
        measured = adversarial_error(own)  # the others are always 1, given that the source errs
    return replace(measured, flags=results.flags(own))


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
                    notes=_notes(results, experiment, condition),
                    collapsed=_collapsed(
                        (
                            same_class_given_both(each)
                            for each in results.record.agreements
                            if Condition.of(each) == condition
                        ),
                        AGREEMENT_FILE,
                    ),
                )


AGREEMENT = ChapterKind("Agreement between targets", agreement_tables, _AGREEMENT_NOTES)


def _notes(results: RunLookup, experiment: Experiment, condition: Condition) -> Iterator[str]:
    own = [attack for attack in experiment.attacks if attack.label == condition.attack]
    return attack_notes(results, experiment, own)


def _agreement_rows(results: RunLookup, condition: Condition) -> Iterator[Row]:
    for each in results.record.agreements:
        if Condition.of(each) == condition:
            found = same_class_given_both(each)
            yield cells(
                each.source,
                f"{each.first}, {each.second}",
                rate_alone(found).flagged(results.flags(each)),
                interval(found),
                count_of(found.part, found.whole) if found.part is not None else count(found.whole),
            )
