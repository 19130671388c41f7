"""The table of means over models that differ in their training seed alone."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import SeedStatistics
from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import count, percent
from gibbon.specs.base import UNATTACKED

_NOTES = (
    "Mean ± standard deviation (with n − 1) over n models of one training recipe, which differ in "
    "their seed. It is the spread between trainings; the intervals of the other tables are about "
    f"the examples. {NOTHING} for a measure that one of the models lacks.",
)


def seed_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each group of models, attack and epsilon."""
    for experiment in results.experiments:
        dataset = experiment.dataset.name
        rows = tuple(
            _row(each, results) for each in results.record.seeds if each.dataset == dataset
        )
        if rows:
            yield Table.on(
                dataset,
                (
                    *columns("Seeds of", "Attack", align="left"),
                    *columns("ε", "n", "Error", "Worst-case error", "Confidence on misclassified"),
                    Column("Mean confidence", level=2),
                    Column("Models", "left", level=2),
                ),
                rows,
            )


SEEDS = ChapterKind("Over training seeds", seed_tables, _NOTES)


def _row(found: SeedStatistics, results: RunLookup) -> Row:
    unattacked, flags = found.attack == UNATTACKED, results.flags(found)
    return cells(
        found.seeds_of,
        found.attack,
        NOTHING if unattacked else found.epsilon,
        count(found.n),
        _spread(found.adversarial_error_mean, found.adversarial_error_sd).flagged(flags),
        NOTHING
        if unattacked
        else _spread(found.worst_case_error_mean, found.worst_case_error_sd).flagged(flags),
        _spread(
            found.confidence_on_misclassified_mean, found.confidence_on_misclassified_sd
        ).flagged(flags),
        _spread(found.mean_confidence_mean, found.mean_confidence_sd).flagged(flags),
        ", ".join(found.models),
    )


def _spread(mean: float | None, deviation: float | None) -> TableCell:
    """Returns a mean and its standard deviation as percentages.

    >>> print(_spread(0.853, 0.0121), _spread(0.5, None))
    85.3 % ± 1.2 50.0 %
    """
    cell = percent(mean)
    if mean is None or deviation is None:
        return cell
    return TableCell(cell.text, f"± {100 * deviation:.1f}", cell.value)
