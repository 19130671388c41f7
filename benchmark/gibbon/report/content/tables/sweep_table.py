"""The table of a sweep: how straight the outputs of models are along one direction."""

from __future__ import annotations

from collections.abc import Sequence

from gibbon.records.swept_outputs import SweptModel
from gibbon.report.content.parts.layout import NOTHING, Column, Row, Table, cells, columns
from gibbon.report.content.parts.number_format import count, length, mean_cell, percent

NOTES = (
    "Straight: share of the variation of all outputs that straight lines explain (R²), for ε of 0 "
    "and less, and of 0 and more; means over the examples, with bootstrap intervals (BCa, 95 %).",
    "First error: median of the smallest ε above 0 with a wrong class, over the examples that have "
    "one and are classified correctly at ε = 0. Wrong after it: mean share of the points from "
    "there to the end that are misclassified; one class: of the points with the class that is "
    "predicted most often there.",
    "Confidence: means over all examples, at the lowest ε, at 0 and at the highest ε. Points are "
    "not clipped to the range of the inputs.",
)


def sweep_table(models: Sequence[SweptModel]) -> Table:
    """Returns a table with a row for each model of a sweep."""
    return Table(
        title="Outputs along one direction",
        columns=(
            *columns("Model", "Attack", align="left"),
            *columns("ε", "Examples"),
            *columns("Straight, ε ≤ 0", "Straight, ε ≥ 0"),
            *columns("Fooled", "First error", "Wrong after it", "One class"),
            *(Column(f"Confidence, {where}", level=1) for where in ("lowest ε", "0", "highest ε")),
        ),
        rows=tuple(map(_row, models)),
        notes=NOTES,
    )


def _row(found: SweptModel) -> Row:
    return cells(
        found.model,
        found.attack,
        f"{found.lowest:g} to {found.highest:g}".replace("-", "−"),
        count(found.examples),
        mean_cell(found.linear_down, found.linear_down_low, found.linear_down_high)
        if found.lowest < 0
        else NOTHING,
        mean_cell(found.linear_up, found.linear_up_low, found.linear_up_high)
        if found.highest > 0
        else NOTHING,
        count(found.fooled),
        length(found.first_error_median),
        percent(found.wrong_after),
        percent(found.steady),
        percent(found.confidence_at_low),
        percent(found.confidence_at_zero),
        percent(found.confidence_at_high),
    )
