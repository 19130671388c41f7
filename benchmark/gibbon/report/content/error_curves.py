"""Tables of error against epsilon."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gibbon.report.content.layout import Cell, Column, Table, cells
from gibbon.report.content.lookup import Cut, Measured, Results, adversarial_error, clean_error
from gibbon.report.content.number_format import count
from gibbon.report.content.table_parts import _ZERO, _attack_notes, _cut, _on, rate_cell
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import AttackSpec, Experiment

CURVES = "Error against epsilon"

_CURVE_NOTES = (
    "Adversarial error over all examples, with its Wilson 95 % interval; the first column is the "
    "clean error. Counts stand in the evaluations.",
)


def curve_tables(results: Results) -> Iterator[Table]:
    """Yields error against epsilon: a table per dataset and attack, models by epsilons.

    Attacks that were run at one epsilon only share one table.
    """
    for experiment in results.experiments:
        single = [attack for attack in experiment.attacks if len(attack.epsilon) == 1]
        for attack in experiment.attacks:
            if attack not in single:
                yield _curve_table(
                    results,
                    experiment,
                    f"{_on(experiment.dataset.name)}: {attack.label}",
                    [_cut(experiment, attack, each) for each in sorted(attack.epsilon)],
                    attacks=[attack],
                    header=lambda cut: f"ε = {cut.epsilon}",
                )
        if single:
            yield _curve_table(
                results,
                experiment,
                f"{_on(experiment.dataset.name)}: attacks at one epsilon",
                [_cut(experiment, attack, attack.epsilon[0]) for attack in single],
                attacks=single,
                header=lambda cut: f"{cut.attack}, ε = {cut.epsilon}",
            )


def _curve_table(
    results: Results,
    experiment: Experiment,
    title: str,
    cuts: list[Cut],
    *,
    attacks: list[AttackSpec],
    header: Callable[[Cut], str],
) -> Table:
    return Table(
        title=title,
        columns=(
            Column("Model", "left"),
            Column("Examples", level=2),
            Column("ε = 0 (clean)"),
            *(Column(header(cut)) for cut in cuts),
        ),
        rows=tuple(_curve_row(results, model.name, cuts) for model in experiment.models),
        notes=tuple(_attack_notes(results, experiment, attacks)),
    )


def _curve_row(results: Results, model: str, cuts: list[Cut]) -> tuple[Cell, ...]:
    unattacked = results.clean(cuts[0].dataset, model)
    start = Cut(cuts[0].dataset, UNATTACKED, _ZERO)
    errors = []
    for cut in cuts:
        found = results.evaluation(cut, model)
        measured = adversarial_error(found) if found else Measured(results.state(cut, model))
        errors.append(rate_cell(measured))
    clean = clean_error(unattacked) if unattacked else Measured(results.state(start, model))
    return cells(
        model,
        count(unattacked.examples if unattacked else None),
        rate_cell(clean, clean=True),
        *errors,
    )
