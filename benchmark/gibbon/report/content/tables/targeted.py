"""The share of examples that reached the target class of a targeted attack: a column of tables."""

from __future__ import annotations

from gibbon.records.run import Evaluation
from gibbon.report.content.parts.layout import NOTHING, Column, Row
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import percent
from gibbon.specs.suite import Experiment

NOTE = (
    "Reached target: of the examples that a targeted attack gave a target class, those whose "
    "adversarial example is predicted as that class; adversarial error and success rate count any "
    "wrong class."
)


def shows_targets(results: RunLookup, experiment: Experiment) -> bool:
    """Returns whether an attack of an experiment was targeted."""
    return experiment.dataset.name in results.targeted


def target_columns(results: RunLookup, experiment: Experiment) -> tuple[Column, ...]:
    """Returns the column of the share; none if no attack was targeted."""
    return (Column("Reached target"),) if shows_targets(results, experiment) else ()


def target_cells(found: Evaluation | None, results: RunLookup, experiment: Experiment) -> Row:
    """Returns the cell of that column."""
    if not shows_targets(results, experiment):
        return ()
    if found is None or found.target_rate is None:
        return (NOTHING,)
    return (percent(found.target_rate).flagged(results.flags(found)),)


def target_notes(results: RunLookup, experiment: Experiment) -> tuple[str, ...]:
    """Returns the note on that column."""
    return (NOTE,) if shows_targets(results, experiment) else ()
