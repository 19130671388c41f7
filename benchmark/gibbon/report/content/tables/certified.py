"""The certified error: a column of other tables, and the table of bounds.

The column is shown if a bound is below 100 %: a bound that proves no example says nothing about the
model.  The table is also shown if bounds were requested, with the reasons why there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gibbon.records.run import CertifiedBound, Evaluation, WorstCase
from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    columns,
)
from gibbon.report.content.parts.lookup import RunLookup, certified_error
from gibbon.report.content.parts.number_format import count, count_of, interval, percent, yes_no
from gibbon.specs.suite import Experiment

NOTE = (
    "Certified error: of all examples, those not proved robust under the threat model, whatever "
    "the attack; it is an upper bound of every adversarial error there. Proofs are exact for "
    "affine models (exact), by interval bound propagation (ibp) or by linear bounds (crown)."
)
_NOTES = (
    NOTE,
    "Proved: the number of examples by the method that proved them first. An example that is "
    "misclassified clean can't be proved. Passes: ranges of the whole network and linear functions "
    "followed back, by example; they are counted in no other table.",
)


def shows_bounds(results: RunLookup, experiment: Experiment) -> bool:
    """Returns whether a bound on an experiment's dataset proves anything."""
    return any(
        each.certified_error is not None and each.certified_error < 1
        for each in results.record.bounds
        if each.dataset == experiment.dataset.name
    )


def certified_columns(
    results: RunLookup, experiment: Experiment, *, bar: bool = False
) -> tuple[Column, ...]:
    """Returns the column of the certified error; none if nothing is proved."""
    return (Column("Certified error", bar=bar),) if shows_bounds(results, experiment) else ()


def certified_cells(
    found: Evaluation | WorstCase | None, results: RunLookup, experiment: Experiment
) -> Row:
    """Returns the cell of the certified error with its method; none if nothing is proved."""
    if not shows_bounds(results, experiment):
        return ()
    if found is None or found.certified_error is None:
        return (NOTHING,)
    return (replace(percent(found.certified_error), detail=f"({found.certified_by})"),)


def certified_notes(results: RunLookup, experiment: Experiment) -> tuple[str, ...]:
    """Returns the note on that column."""
    return (NOTE,) if shows_bounds(results, experiment) else ()


def certified_tables(results: RunLookup) -> Iterator[Table]:
    """Yields the bounds of each model under each threat model: one table a dataset."""
    for experiment in results.experiments:
        rows = [each for each in results.record.bounds if each.dataset == experiment.dataset.name]
        if shows_bounds(results, experiment) or any(each.requested for each in rows):
            yield Table.on(
                experiment.dataset.name,
                (
                    *columns("Model", "Norm", align="left"),
                    *columns("ε", "Clipped", "Certified error"),
                    Column("95 % interval", level=1),
                    Column("By", "left"),
                    *columns("Proved", "exact", "ibp", "crown"),
                    *columns("Forward passes", "Backward passes", "Seconds", level=2),
                    Column("Note", "left"),
                ),
                map(_row, rows),
            )


CERTIFIED = ChapterKind("Certified bounds", certified_tables, _NOTES)


def _row(found: CertifiedBound) -> Row:
    measured = certified_error(found)
    return (
        TableCell(found.model),
        TableCell(found.norm.symbol),
        TableCell(str(found.epsilon), value=float(found.epsilon)),
        yes_no(found.clip),
        percent(found.certified_error),
        interval(measured),
        TableCell(found.certified_by or "") if found.certified_by else NOTHING,
        count_of(found.proved, found.examples),
        count(found.proved_exact or None),
        count(found.proved_ibp or None),
        count(found.proved_crown or None),
        count(found.forward_passes),
        count(found.backward_passes),
        TableCell(f"{found.seconds:.1f}", value=found.seconds),
        TableCell(found.reason),
    )
