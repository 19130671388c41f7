"""Tables of transfer between models, and of agreement on the wrong class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gibbon.records.run import Transfer
from gibbon.report.content.layout import FAILED, Cell, Column, Table, cells
from gibbon.report.content.lookup import (
    Cut,
    Measured,
    Results,
    adversarial_error,
    error_given_source,
    same_class_given_both,
    same_class_given_source,
    transfer_error,
)
from gibbon.report.content.number_format import count, interval, percent, share
from gibbon.report.content.table_parts import _cut_in_words, _on, _word, rate_cell
from gibbon.specs.suite import Experiment

TRANSFER = "Transfer"
AGREEMENT = "Agreement between targets"

_DIAGONAL = "†"

_TRANSFER_NOTES = (
    "Rows are the models that the examples were made on (sources), columns the models that they "
    f"were scored on (targets); {_DIAGONAL} where both are the same model. In brackets the Wilson "
    "95 % interval; the second column is what the rates of its row are a share of.",
    "Error: misclassified by the target, of all examples. Given the source is misled: of the "
    "examples that the source misclassifies. Same wrong class: the target gives the wrong class "
    "that the source gives. Given both are misled: of the examples that both misclassify; how "
    "many those are stands in each cell.",
)
_AGREEMENT_NOTES = (
    "Of one source's examples that both targets misclassify, the share that they put into the "
    "same wrong class.",
)


@dataclass(frozen=True)
class Matrix:
    """One of the transfer matrices: what its cells are, and of which examples."""

    name: str
    title: str
    cell: Callable[[Transfer], Measured]
    of: str


MATRICES = (
    Matrix("error", "error", transfer_error, "Examples"),
    Matrix(
        "error_given_source_misclassified",
        "error, given the source is misled",
        error_given_source,
        "Source misled",
    ),
    Matrix(
        "same_class_given_source_misclassified",
        "same wrong class, given the source is misled",
        same_class_given_source,
        "Source misled",
    ),
    Matrix(
        "same_class_given_both_misclassified",
        "same wrong class, given both are misled",
        same_class_given_both,
        "Source misled",
    ),
)


def transfer_tables(results: Results, *, only_error: bool = False) -> Iterator[Table]:
    """Yields the transfer matrices: rows are sources, columns targets."""
    for experiment in results.experiments:
        for cut in results.transfer_cuts(experiment):
            for matrix in MATRICES[:1] if only_error else MATRICES:
                yield _transfer_table(results, experiment, cut, matrix)


def _transfer_table(results: Results, experiment: Experiment, cut: Cut, matrix: Matrix) -> Table:
    models = [model.name for model in experiment.models]
    return Table(
        title=f"{_on(cut.dataset)}, {cut.attack}, ε = {cut.epsilon}: {matrix.title}",
        columns=(
            Column("Source ↓ target →", "left"),
            Column(matrix.of),
            *(Column(model) for model in models),
        ),
        rows=tuple(
            cells(
                source,
                _denominator(results, cut, source, matrix),
                *(_transfer_cell(results, cut, source, target, matrix) for target in models),
            )
            for source in models
        ),
        notes=(_cut_in_words(results, experiment, cut),),
    )


def _denominator(results: Results, cut: Cut, source: str, matrix: Matrix) -> str:
    found = results.evaluation(cut, source)
    if found is None or found.status == "failed":
        return _word(results.state(cut, source))
    return count(found.examples if matrix.of == "Examples" else found.misclassified)


def _transfer_cell(results: Results, cut: Cut, source: str, target: str, matrix: Matrix) -> Cell:
    mark = f" {_DIAGONAL}" if source == target else ""
    measured = transferred(results, cut, source, target, matrix)
    cell = rate_cell(measured)
    detail = cell.detail
    if matrix.cell is same_class_given_both and measured.whole is not None:
        detail = f"{detail} of {count(measured.whole)}".strip()
    return Cell(cell.text + mark, detail)


def transferred(results: Results, cut: Cut, source: str, target: str, matrix: Matrix) -> Measured:
    """Returns what stands in one place of a transfer matrix."""
    found = results.transfer(cut, source, target)
    if found is not None:
        return matrix.cell(found)
    own = results.evaluation(cut, source) if source == target else None
    if own is None:
        return Measured("failed" if results.state(cut, source) == "failed" else "not run")
    if own.status == "failed" or matrix.cell is transfer_error:
        return adversarial_error(own)
    whole = own.misclassified  # given the source is misled, the source is misled: always
    return Measured("done", 1.0 if whole else None, part=whole, whole=whole)


def agreement_tables(results: Results) -> Iterator[Table]:
    """Yields how often two targets give the same wrong class on one source's examples."""
    for experiment in results.experiments:
        for cut in results.transfer_cuts(experiment):
            rows = tuple(_agreement_rows(results, cut))
            if rows:
                yield Table(
                    title=f"{_on(cut.dataset)}, {cut.attack}, ε = {cut.epsilon}",
                    columns=(
                        Column("Source", "left"),
                        Column("Targets", "left"),
                        Column("Same wrong class"),
                        Column("95 % interval"),
                        Column("of both misled"),
                    ),
                    rows=rows,
                    notes=(_cut_in_words(results, experiment, cut),),
                )


def _agreement_rows(results: Results, cut: Cut) -> Iterator[tuple[Cell, ...]]:
    for each in results.record.agreements:
        if Cut(each.dataset, each.attack, each.epsilon) == cut:
            found = same_class_given_both(each)
            done = found.state == "done"
            yield cells(
                each.source,
                f"{each.first}, {each.second}",
                percent(found.rate) if done else FAILED,
                interval(found.low, found.high, rate=found.rate),
                share(found.part, found.whole) if found.part is not None else count(found.whole),
            )
