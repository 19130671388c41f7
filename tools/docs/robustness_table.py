"""The table of robust accuracy: one row for each model, at one epsilon, over all its attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gibbon.core.errors import RecordError
from gibbon.core.threat import Epsilon
from gibbon.records.run import RunRecord, WorstCase
from gibbon.report.content.parts.layout import Column, Row, Table, cells, columns
from gibbon.report.content.parts.lookup import Condition, Measured, RunLookup, worst_case_error
from gibbon.report.content.parts.number_format import count, interval, percent, rate_alone

NOTES = (
    "Robust accuracy: share of the n examples that are classified correctly, unattacked and under "
    "every attack of the row; 1 − worst-case error. The attacks stay in the pixel range.",
)


def robustness_table(record: RunRecord, epsilon: Epsilon) -> Table:
    """Returns robust accuracy, clean error and worst-case error of each model at an epsilon.

    Raises `RecordError` if no model was attacked several times at this epsilon.
    """
    results = RunLookup(record)
    found = [each for each in record.worst_cases if each.epsilon == epsilon and each.clip]
    if not found:
        raise RecordError(f"{record.suite.name}: has no worst case at epsilon {epsilon}")
    return Table(
        title=f"Robust accuracy at ε = {epsilon}",
        columns=(
            Column("Model", "left"),
            *columns("Robust accuracy", "95 % interval", "n", "Clean error", "Worst-case error"),
            Column("Attacks", "left"),
        ),
        rows=tuple(_rows(results, found)),
        notes=NOTES,
    )


def _rows(results: RunLookup, found: list[WorstCase]) -> Iterator[Row]:
    for each in found:
        error = worst_case_error(each)
        clean = results.error(Condition.unattacked(each.dataset), each.model)
        robust = complement(error)
        flags = results.flags(each)
        yield cells(
            each.model,
            percent(robust.rate).flagged(flags),
            interval(robust),
            count(each.examples),
            rate_alone(clean),
            percent(error.rate).flagged(flags),
            ", ".join(each.attacks),
        )


def complement(error: Measured) -> Measured:
    """Returns the accuracy that belongs to an error, with its interval.

    >>> found = complement(Measured("done", 0.25, 0.125, 0.375))
    >>> found.rate, found.low, found.high
    (0.75, 0.625, 0.875)
    """

    def rest(rate: float | None) -> float | None:
        return None if rate is None else 1.0 - rate

    low, high = rest(error.high), rest(error.low)
    return replace(error, rate=rest(error.rate), low=low, high=high, part=None)
