"""Attacks compared on one model: their errors, distances and costs."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.records.run import Evaluation
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
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.parts.number_format import interval, length, percent, state_cell, yes_no
from gibbon.specs.suite import AttackSpec

_COMPARED_NOTES = (
    "On one model, sorted by norm, ε and clipping, then by error: of all examples, those whose "
    "adversarial example is misclassified, with its Wilson 95 % interval. Median distance: of the "
    "nearest adversarial examples, for attacks that search for them.",
    "Forward, backward: passes of the model per example; passes that several ε share are counted "
    "once, at the first of them. Seconds depend on the machine of the run and its load: compare "
    "passes.",
)
_FEWEST = 3  # two attacks compare themselves in the evaluations
_OURS = "here"
_Place = tuple[str, float, bool, float]


def comparison_tables(results: RunLookup) -> Iterator[Table]:
    """Yields a table for each experiment with one model and three or more attacks."""
    for experiment in results.experiments:
        if len(experiment.models) != 1 or len(experiment.attacks) < _FEWEST:
            continue
        (model,) = experiment.models
        libraries = any(_library(attack) != _OURS for attack in experiment.attacks)
        rows = [
            _row(results, attack, condition, model.name, libraries=libraries)
            for attack in experiment.attacks
            for condition in results.attack_conditions(experiment, attack)
        ]
        yield Table.on(
            experiment.dataset.name,
            (
                Column("Attack", "left"),
                *([Column("Library", "left", level=1)] if libraries else []),
                Column("Norm", "left"),
                Column("ε"),
                Column("Clipped", level=2),
                Column("Error"),
                Column("95 % interval", level=1),
                *columns("Median distance", "Forward", "Backward", "Seconds"),
                Column("Iterate kept", "left", level=2),
            ),
            (row for _, row in sorted(rows, key=lambda each: each[0])),
            detail=f": {model.name}",
        )


COMPARED = ChapterKind("Attacks compared", comparison_tables, _COMPARED_NOTES)


def _row(
    results: RunLookup, attack: AttackSpec, condition: Condition, model: str, *, libraries: bool
) -> tuple[_Place, Row]:
    """Returns the row of an attack at an epsilon, and the key that rows are sorted by."""
    found = results.evaluation(condition, model)
    norm = (found.norm if found else None) or attack.norm
    library = (_library(attack, found),) if libraries else ()
    threat = (norm.symbol if norm else NOTHING, condition.epsilon, yes_no(attack.clip))
    head = (attack.label, *library, *threat)
    error = results.error(condition, model)
    # Rows without a norm come last; rows without an error come last among those of their norm.
    failed = found is None or found.status == "failed" or not found.examples
    last = 1.0 if failed else -(error.rate or 0.0)
    place = (norm.symbol if norm else "~", float(condition.epsilon), attack.clip, last)
    if found is None or failed:
        state = state_cell(results.absent(condition, model).state)
        return place, cells(*head, state, *[NOTHING] * 6)
    return place, cells(
        *head,
        percent(error.rate).flagged(results.flags(found)),
        interval(error),
        length(found.nearest_median).flagged(results.flags(found)),
        _per_example(found.forward_passes, found),
        _per_example(found.backward_passes, found),
        TableCell(f"{found.seconds:.1f}", value=found.seconds),
        found.iterate or NOTHING,
    )


def _library(attack: AttackSpec, found: Evaluation | None = None) -> str:
    """Returns the library of an attack, with its version if the attack was run."""
    scheme, colon, _ = attack.name.partition(":")
    if not colon:
        return _OURS
    return str(found.parameter_values.get("release", scheme)) if found else scheme


def _per_example(passes: int, found: Evaluation) -> TableCell:
    """Returns the number of passes per example.

    >>> row = Evaluation(dataset="d", model="m", attack="a", epsilon="0.1", examples=100)
    >>> print(_per_example(2050, row), _per_example(300, row))
    20.5 3
    """
    number = round(passes / found.examples, 1)
    return TableCell(f"{number:,.0f}" if number.is_integer() else f"{number:,.1f}", value=number)
