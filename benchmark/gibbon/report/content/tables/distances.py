"""Tables of the smallest adversarial distances."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.report.content.parts.layout import (
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.parts.number_format import (
    count,
    length,
    length_cell,
    percent,
    state_cell,
    yes_no,
)
from gibbon.report.content.parts.table_parts import any_done, attack_notes, evaluated
from gibbon.specs.suite import AttackSpec, Experiment

_NEAREST_NOTES = (
    "Distance to the nearest misclassified point that the attack found, in the units of the input: "
    "an upper bound on the smallest distance. Found: of all examples, those with such a point; an "
    "input that is misclassified itself has distance 0. The model predicted every point again; no "
    "claim of an attack is used.",
    "Quantiles are over all examples, with an infinite distance for those without a point; "
    f"{NOTHING} for an infinite quantile. In brackets: the bootstrap interval of the median (BCa, "
    "95 %). The error at any ε is the share of all examples whose "
    "distance is at most ε.",
)


def nearest_tables(results: RunLookup) -> Iterator[Table]:
    """Yields one table a dataset: a row for each model and attack that searches for distances."""
    for experiment in results.experiments:
        searching = [
            attack
            for attack in experiment.attacks
            if any(
                each.nearest_found is not None for each in evaluated(results, experiment, attack)
            )
        ]
        if searching:
            yield Table.on(
                experiment.dataset.name,
                (
                    *columns("Model", "Attack", "Norm", align="left"),
                    Column("Clipped", level=1),
                    Column("Found"),
                    Column("Examples", level=2),
                    *columns("10 % within", "Median distance", "90 % within"),
                ),
                (
                    _nearest_row(results, experiment, model.name, attack)
                    for model in experiment.models
                    for attack in searching
                ),
                notes=attack_notes(results, experiment, searching),
            )


NEAREST = ChapterKind("Smallest adversarial distance", nearest_tables, _NEAREST_NOTES)


def _nearest_row(results: RunLookup, experiment: Experiment, model: str, attack: AttackSpec) -> Row:
    # One search serves every epsilon of an attack: any finished cell has its distances.
    found = any_done(results, experiment, attack)
    norm = (found.norm if found else None) or attack.norm
    head = (model, attack.label, norm.symbol if norm else NOTHING, yes_no(attack.clip))
    for each in evaluated(results, experiment, attack, model=model):
        if each.nearest_found is not None:
            flags = results.flags(each)
            return cells(
                *head,
                percent(each.nearest_found / each.examples if each.examples else None).flagged(
                    flags
                ),
                count(each.examples),
                length(each.nearest_q10).flagged(flags),
                length_cell(
                    each.nearest_median, each.nearest_median_low, each.nearest_median_high
                ).flagged(flags),
                length(each.nearest_q90).flagged(flags),
            )
    first = Condition(experiment.dataset.name, attack.label, attack.epsilon[0])
    return cells(*head, state_cell(results.state(first, model)), *[NOTHING] * 4)
