"""Tables of error against epsilon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.report.content.parts.layout import ChapterKind, Column, Row, Table, cells, columns
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.parts.number_format import count, rate_cell
from gibbon.report.content.parts.table_parts import attack_notes

_CURVE_NOTES = (
    "Adversarial error over all examples, with its Wilson 95 % interval; the first column is the "
    "clean error. The evaluations have the counts.",
)


def curve_tables(results: RunLookup) -> Iterator[Table]:
    """Yields error against epsilon: a table for each dataset and attack, models by epsilons.

    Attacks that were run at one epsilon only share one table.
    """
    for experiment in results.experiments:
        single = [attack for attack in experiment.attacks if len(attack.epsilon) == 1]
        groups = [(each.label, [each]) for each in experiment.attacks if each not in single]
        if single:
            groups.append(("attacks at one epsilon", single))
        for title, attacks in groups:
            conditions = [
                condition
                for attack in attacks
                for condition in results.attack_conditions(experiment, attack)
            ]
            heads = [
                str(each) if attacks is single else f"ε = {each.epsilon}" for each in conditions
            ]
            yield Table.on(
                experiment.dataset.name,
                (
                    Column("Model", "left"),
                    Column("Examples", level=2),
                    *columns("ε = 0 (clean)", *heads),
                ),
                (_curve_row(results, model.name, conditions) for model in experiment.models),
                detail=f": {title}",
                notes=attack_notes(results, experiment, attacks),
            )


CURVES = ChapterKind("Error against epsilon", curve_tables, _CURVE_NOTES)


def _curve_row(results: RunLookup, model: str, conditions: Sequence[Condition]) -> Row:
    start = Condition.unattacked(conditions[0].dataset)
    unattacked = results.evaluation(start, model)
    return cells(
        model,
        count(unattacked.examples if unattacked else None),
        rate_cell(results.error(start, model), clean=True),
        *(rate_cell(results.error(condition, model)) for condition in conditions),
    )
