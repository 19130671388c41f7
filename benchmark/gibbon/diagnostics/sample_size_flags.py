"""Flags of claims that the number of examples can't carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.metrics.intervals import wilson_interval
from gibbon.metrics.paired_tests import rounded
from gibbon.records.flags import Flag
from gibbon.records.run import ModelComparison, WorstCase

WIDEST = 0.3  # of an interval of a rate; 38 examples and more are never wider
DIFFERENCE = 0.05  # between two models' errors: what papers claim, and small runs can't show
ENOUGH = 400  # examples with which no interval is wider than ten points


def sample_size_flags(
    worst_cases: Sequence[WorstCase], comparisons: Sequence[ModelComparison]
) -> Iterator[Flag]:
    """Yields at most one note about the results on one dataset.

    It is about a run on so few examples that a robust accuracy above zero says next to nothing;
    else about the two models whose errors differ most without being distinguishable.

    Args:
        worst_cases: the worst cases of all models.
        comparisons: the comparisons of any two models.
    """
    claims = [row for row in worst_cases if row.misclassified < row.examples]
    few = [row for row in claims if _widest(row.examples) > WIDEST]
    if few:
        yield _few_examples(max(few, key=_width))
        return
    unclear = [row for row in comparisons if not row.more_robust and _difference(row) >= DIFFERENCE]
    if unclear:
        yield _unclear_difference(max(unclear, key=_difference))


def _few_examples(row: WorstCase) -> Flag:
    low, high = row.worst_case_error_low or 0.0, row.worst_case_error_high or 1.0
    return Flag(
        kind="too-few-examples",
        severity="note",
        dataset=row.dataset,
        figure=f"{row.examples} examples",
        sentence=f"{row.examples} examples are too few for a claim: the worst-case error of "
        f"{row.model} at epsilon {row.epsilon} is {row.misclassified / row.examples:.0%}, with a "
        f"95 % interval from {low:.0%} to {high:.0%}",
        advice=f"Use at least {ENOUGH} examples, with which no 95 % interval is wider than ten "
        "points: leave out --limit, or raise it.",
    )


def _unclear_difference(row: ModelComparison) -> Flag:
    better, worse = row.first, row.second
    if (row.first_error or 0.0) > (row.second_error or 0.0):
        better, worse = worse, better
    needed = rounded(row.examples_needed or row.examples)
    return Flag(
        kind="too-few-examples",
        severity="note",
        dataset=row.dataset,
        model=better,
        epsilon=row.epsilon,
        figure=f"{row.only_first} against {row.only_second} of {row.examples:,}, "
        f"p = {row.p_value:.2g}",
        sentence=f"the worst-case error is {100 * _difference(row):.1f} points below that of "
        f"{worse}, which {row.examples:,} examples can't show ({row.only_first} against "
        f"{row.only_second} differ, McNemar's exact test, p = {row.p_value:.2g}); about "
        f"{needed:,} would be needed",
        advice=f"Use about {needed:,} examples, or do not call either of the two more robust.",
    )


def _difference(row: ModelComparison) -> float:
    return abs((row.first_error or 0.0) - (row.second_error or 0.0))


def _width(row: WorstCase) -> float:
    return (row.worst_case_error_high or 1.0) - (row.worst_case_error_low or 0.0)


def _widest(examples: int) -> float:
    """Returns the width of the widest 95 % interval of a rate over so many examples."""
    interval = wilson_interval(examples // 2, examples)
    return interval.high - interval.low
