"""Numbers as cells of tables: percentages, intervals, counts, differences; names of measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gibbon.report.content.parts.layout import FAILED, NOT_RUN, NOTHING, TableCell
from gibbon.report.content.parts.lookup import CellState, Measured
from gibbon.specs.published import MeasureName

MEASURES: Final[dict[MeasureName, str]] = {
    "clean_error": "clean error",
    "adversarial_error": "adversarial error",
    "confidence_on_misclassified": "confidence on misclassified",
    "mean_confidence": "mean confidence",
    "worst_case_error": "worst-case error",
    "certified_error": "certified error",
    "transfer_error": "transfer error",
    "same_class_given_source_misclassified": "same wrong class, given source misclassified",
    "same_class_given_both_misclassified": "same wrong class, given both misclassified",
    "false_positive_rate": "false positives, of inputs without a class",
    "confidence_on_false_positives": "confidence on false positives",
    "share_of_false_positives": "share of the false positives",
    "fooling_rate": "fooling rate",
    "auroc": "AUROC",
    "one_picture": "one picture",
}

# Clean errors below this are compared in hundredths of a point, as the literature does.
_SMALL_CLEAN_ERROR = 0.1
_MOST_DECIMALS = 4
_SMALLEST_P = 0.001
_MOST_PLACES = 6  # of a distance; smaller ones are written with a power of ten


def decimals_of(rate: float | None, *, clean: bool = False) -> int:
    """Returns the number of decimals of a rate that is printed as a percentage.

    One; two for a clean error below 10 %; more if a rate that is not 0 or 1 would otherwise be
    printed as if it were.

    >>> decimals_of(0.894), decimals_of(0.0094, clean=True), decimals_of(0.9998), decimals_of(1.0)
    (1, 2, 2, 1)
    """
    if rate is None:
        return 1
    decimals = 2 if clean and rate < _SMALL_CLEAN_ERROR else 1
    while decimals < _MOST_DECIMALS and _reads_as_an_end(rate, decimals):
        decimals += 1
    return decimals


def _reads_as_an_end(rate: float, decimals: int) -> bool:
    ends = (f"{0:.{decimals}f}", f"{100:.{decimals}f}")
    return 0 < rate < 1 and f"{100 * rate:.{decimals}f}" in ends


def _hundredths(rate: float, decimals: int) -> str:
    if not _reads_as_an_end(rate, decimals):
        return f"{100 * rate:.{decimals}f}"
    least = 10**-decimals
    return f"<{least:.{decimals}f}" if rate < 1 / 2 else f">{100 - least:.{decimals}f}"


def percent(rate: float | None, *, clean: bool = False) -> TableCell:
    """Returns a rate as a percentage; a dash for None.

    Only 0 and 1 are printed as 0 % and 100 %: a rate that four decimals can't distinguish from them
    is printed as below or above the nearest rate that they can.

    >>> print(percent(0.894), percent(0.0113, clean=True), percent(None), percent(0.9998))
    89.4 % 1.13 % – 99.98 %
    >>> print(percent(0.9999999), percent(1e-9), percent(1.0))
    >99.9999 % <0.0001 % 100.0 %
    """
    if rate is None:
        return NOTHING
    return TableCell(f"{percent_number(rate, clean=clean)} %", value=100 * rate)


def percent_number(rate: float, *, clean: bool = False) -> str:
    """Returns a rate in per cent, without the unit, with the digits of `percent`."""
    return _hundredths(rate, decimals_of(rate, clean=clean))


def as_published(rate: float) -> str:
    """Returns a published rate with the decimals that it was published with.

    >>> as_published(0.016), as_published(0.0094), as_published(0.99)
    ('1.6 %', '0.94 %', '99 %')
    """
    return f"{round(100 * rate, 6):g} %"


def interval(measured: Measured, *, clean: bool = False) -> TableCell:
    """Returns the interval of a rate, with at least as many decimals as the rate.

    It has more if an end would otherwise be printed as 0 or 100 and is not.

    >>> print(interval(Measured("done", 0.894, 0.8878, 0.8999)))
    [88.8–90.0]
    >>> print(interval(Measured("done", 1.0, 0.999616, 1.0)))
    [99.96–100.00]
    """
    low, high = measured.low, measured.high
    if low is None or high is None:
        return NOTHING
    decimals = max(decimals_of(measured.rate, clean=clean), decimals_of(low), decimals_of(high))
    text = f"[{_hundredths(low, decimals)}–{_hundredths(high, decimals)}]"
    return TableCell(text, value=100 * low)


def state_cell(state: CellState) -> TableCell:
    """Returns the word for a cell that failed or was not run, and a dash for one that is done."""
    return {"failed": FAILED, "not run": NOT_RUN}.get(state, NOTHING)


def rate_alone(measured: Measured) -> TableCell:
    """Returns a rate without its interval, or the word for why there is none."""
    if measured.state != "done":
        return state_cell(measured.state)
    return percent(measured.rate).flagged(measured.flags)


def rate_cell(measured: Measured, *, clean: bool = False) -> TableCell:
    """Returns a rate with its interval as detail, or the word for why there is none."""
    if measured.state != "done":
        return state_cell(measured.state)
    cell = percent(measured.rate, clean=clean).flagged(measured.flags)
    if measured.low is None or measured.high is None:
        return cell
    return replace(cell, detail=interval(measured, clean=clean).text)


def mean_cell(mean: float | None, low: float | None, high: float | None) -> TableCell:
    """Returns a mean that is a fraction of 1, with its interval as detail; a dash for None.

    >>> print(mean_cell(0.793, 0.781, 0.804), mean_cell(0.5, None, None))
    79.3 % [78.1–80.4] 50.0 %
    """
    return rate_cell(Measured("done", mean, low, high))


def points(measured: float | None, published: float, *, clean: bool = False) -> TableCell:
    """Returns the difference of a measured and a published rate in percentage points.

    >>> print(points(0.991, 0.894), points(0.0084, 0.0094, clean=True), points(0.894, 0.894))
    +9.7 −0.10 0.0
    """
    if measured is None:
        return NOTHING
    decimals = 2 if clean and max(measured, published) < _SMALL_CLEAN_ERROR else 1
    difference = round(100 * (measured - published), decimals)
    sign = "+" if difference > 0 else "−" if difference < 0 else ""
    return TableCell(f"{sign}{abs(difference):.{decimals}f}", value=difference)


def count(number: int | None) -> TableCell:
    """Returns a count with separated thousands.

    >>> print(count(10000), count(None))
    10,000 –
    """
    return NOTHING if number is None else TableCell(f"{number:,}", value=number)


def count_of(part: int | None, whole: int | None) -> TableCell:
    """Returns a count with the number that it is a share of.

    >>> print(count_of(8940, 10000), count_of(None, 10000))
    8,940 / 10,000 –
    """
    if part is None or whole is None:
        return NOTHING
    return TableCell(f"{part:,} / {whole:,}", value=part / whole if whole else None)


def length(distance: float | None) -> TableCell:
    """Returns a distance with three digits; a dash for None.

    >>> print(length(0.0823529), length(1.5), length(0.0), length(12345.6), length(None))
    0.0824 1.50 0 12346 –
    """
    if distance is None:
        return NOTHING
    decimals = max(0, 2 - math.floor(math.log10(distance))) if distance else 0
    text = f"{distance:.{decimals}f}" if decimals <= _MOST_PLACES else f"{distance:.2e}"
    return TableCell(text, value=distance)


def length_cell(distance: float | None, low: float | None, high: float | None) -> TableCell:
    """Returns a distance with its interval as detail, whose upper end is infinite if it is None.

    >>> print(length_cell(0.0823529, 0.0801, 0.0849), length_cell(1.5, 1.25, None))
    0.0824 [0.0801–0.0849] 1.50 [1.25–∞]
    """
    cell = length(distance)
    if distance is None or low is None:
        return cell
    return replace(cell, detail=f"[{length(low)}–{'∞' if high is None else length(high)}]")


def p_number(p_value: float) -> str:
    """Returns a p-value for a cell.

    >>> p_number(0.0214), p_number(1e-9)
    ('0.021', '< 0.001')
    """
    return f"{p_value:.2g}" if p_value >= _SMALLEST_P else f"< {_SMALLEST_P:g}"


def p_text(p_value: float) -> str:
    """Returns a p-value for a sentence.

    >>> p_text(0.0214), p_text(1e-9), p_text(1.0)
    ('p = 0.021', 'p < 0.001', 'p = 1')
    """
    return f"p {'= ' if p_value >= _SMALLEST_P else ''}{p_number(p_value)}"


def yes_no(truth: bool | None) -> TableCell:
    """Returns ``yes``, ``no`` or a dash."""
    return NOTHING if truth is None else TableCell("yes" if truth else "no")


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Returns the parameters of an attack for a sentence.

    It leaves out None, which is the attack's own default, and the iterate kept, which is printed
    elsewhere.

    >>> parameters_text({"steps": 20, "step_size": None, "random_start": True})
    'steps 20, random start yes'
    >>> parameters_text({"attacks": ["pgd (steps 3)", "square (queries 20)"]})
    'attacks pgd (steps 3), square (queries 20)'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {_value_text(value)}"
        for name, value in parameters.items()
        if value is not None and name != "keep"
    )


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value_text, value))
    return str(yes_no(value) if isinstance(value, bool) else value)
