"""Tables of the smallest adversarial distances."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.report.content.layout import NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import Results
from gibbon.report.content.number_format import count, length, percent, yes_no
from gibbon.report.content.table_parts import _any_done, _attack_notes, _cut, _evaluated, _on, _word
from gibbon.specs.suite import AttackSpec, Experiment

NEAREST = "Smallest adversarial distance"

_NEAREST_NOTES = (
    "How far the nearest misclassified point is that the attack found, in the units of the input: "
    "a bound from above on the smallest distance that there is. Found: of all examples, those with "
    "such a point, which is the input itself, at distance 0, where that is misclassified. The "
    "model was asked again; nothing that an attack claims counts.",
    f"Quantiles are over all examples, those without a point counting as infinitely far; {NOTHING} "
    "where the quantile is infinite, because too few were found. The error at any ε is the share "
    "of all examples whose distance is at most ε.",
)


def nearest_tables(results: Results) -> Iterator[Table]:
    """Yields a table a dataset: a line per model and attack that looks for the nearest example."""
    for experiment in results.experiments:
        searching = [
            attack
            for attack in experiment.attacks
            if any(
                each.nearest_found is not None for each in _evaluated(results, experiment, attack)
            )
        ]
        rows = tuple(
            _nearest_row(results, experiment, model.name, attack)
            for model in experiment.models
            for attack in searching
        )
        if rows:
            yield Table(
                title=_on(experiment.dataset.name),
                columns=(
                    Column("Model", "left"),
                    Column("Attack", "left"),
                    Column("Norm", "left"),
                    Column("Clipped", level=1),
                    Column("Found"),
                    Column("Examples", level=2),
                    Column("10 % within"),
                    Column("Median distance"),
                    Column("90 % within"),
                ),
                rows=rows,
                notes=tuple(_attack_notes(results, experiment, searching)),
            )


def _nearest_row(
    results: Results, experiment: Experiment, model: str, attack: AttackSpec
) -> tuple[Cell, ...]:
    # One search serves every epsilon of an attack: any cell that is done has its distances.
    any_done = _any_done(results, experiment, attack)
    norm = (any_done.norm if any_done else None) or attack.norm
    head = (model, attack.label, norm.symbol if norm else NOTHING, yes_no(attack.clip))
    for each in _evaluated(results, experiment, attack, model=model):
        if each.nearest_found is not None:
            return cells(
                *head,
                percent(each.nearest_found / each.examples if each.examples else None),
                count(each.examples),
                length(each.nearest_q10),
                length(each.nearest_median),
                length(each.nearest_q90),
            )
    word = _word(results.state(_cut(experiment, attack, attack.epsilon[0]), model))
    return cells(*head, word, *[NOTHING] * 4)
