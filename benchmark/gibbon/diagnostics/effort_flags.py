"""Flags of attacks with far fewer steps or queries than they declare, or than their paper uses.

An attack that stops at the first success of a batch, or of another example, leaves the others with
a few steps, whatever number it declares (N. Carlini et al., "On evaluating adversarial robustness",
2019, arXiv:1902.06705, sections 4 and 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gibbon.attacks.base import Attack, is_ours, parameters_of
from gibbon.diagnostics.attack_advice import (
    QUERY_NAMES,
    STEP_NAMES,
    YIELDED,
    library_of,
    number_of,
)
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.records.flags import Flag

KIND = "few-steps"
TAKEN_SHARE = 0.5  # of the declared steps: an attack that leaves out more did not take them
LEAST_SURVIVORS = 3  # fewer may have been left by a rule of the attack's own
SOURCE_SHARE, FAR_BELOW = 10, 100  # fewer than one in so many steps of the source


def effort_flags(cell: AttackedCell) -> Iterator[Flag]:
    """Yields the flag of an attack that took few of its steps or queries on a model."""
    if cell.attack is not None and cell.epsilon:
        yield from _not_taken(cell, cell.attack)


def source_flags(cells: Iterable[AttackedCell]) -> Iterator[Flag]:
    """Yields a flag for each attack with far fewer steps or queries than its paper uses.

    None if no example survived it on any model.
    """
    groups: dict[tuple[str, str], list[AttackedCell]] = {}
    for cell in cells:
        if cell.epsilon and cell.survivors.any():
            groups.setdefault((cell.row.dataset, cell.row.attack), []).append(cell)
    for group in groups.values():
        if group[0].attack is not None:
            yield from _below_source(group, group[0].attack)


def _not_taken(cell: AttackedCell, attack: Attack) -> Iterator[Flag]:
    """Compares the declared number with what was counted for the examples that survived.

    A gradient is counted for each example.  Calls without gradients are counted for the cell: it
    has too few if they would not do for the survivors alone.
    """
    survivors = cell.survivors & ~cell.lost  # a run ends, for the count, at a success
    known = not (attack.made_of or cell.searches or not cell.steady or cell.path is None)
    if not known or int(survivors.sum()) < LEAST_SURVIVORS or cell.path is None:
        return
    if cell.takes_gradients:
        found = number_of(cell.row, STEP_NAMES)
        taken, unit = float(np.median(cell.path.steps[survivors])), "gradients"
    elif not attack.needs_gradient and cell.outcome.meta.forward_passes:
        found = number_of(cell.row, (*QUERY_NAMES, *STEP_NAMES))
        taken = cell.outcome.meta.forward_passes / int(survivors.sum())
        unit = "queries at most"
    else:
        return
    if found is None or found[1] < 2 or taken >= TAKEN_SHARE * found[1]:
        return
    name, declared = found
    yield cell.flag(
        KIND,
        figure=f"{taken:.3g} of {declared:,}",
        sentence=f"the attack declares {name} = {declared:,}, and took {taken:.3g} {unit} for each "
        f"of the {int(survivors.sum())} examples that survived (median)",
        advice="Let the attack stop for each example separately: one success, or one batch that is "
        f"done, must not end the search for the others; {YIELDED}.",
    )


def _below_source(cells: Sequence[AttackedCell], attack: Attack) -> Iterator[Flag]:
    """Compares the number with the default of our attacks, which is the paper's, or a library's."""
    few = [found for each in attack.made_of or (attack,) if (found := _few(each)) is not None]
    if not few:
        return
    row = cells[0].row
    name, label, count, usual, where = min(few, key=lambda each: each[2] / each[3])
    member = f"{label} (member of {row.attack})" if attack.made_of else "the attack"
    survivors = sum(int(cell.survivors.sum()) for cell in cells)
    yield Flag(
        kind=KIND,
        severity="warning" if FAR_BELOW * count < usual else "note",
        dataset=row.dataset,
        attack=row.attack,
        figure=f"{count:,} against {usual:,}",
        sentence=f"{member} has {name} = {count:,}, where {where} uses {usual:,}: that examples "
        f"survived it ({survivors:,} over models and epsilons) says little",
        advice=f"Use {name} = {usual:,}.",
        suite="" if attack.made_of else f"{name} = {usual}",
    )


def _few(attack: Attack) -> tuple[str, str, int, int, str] | None:
    """Returns parameter, class, number, usual number and source; None if there are enough."""
    library = library_of(attack)
    if not library and not is_ours(attack):
        return None
    values, name = parameters_of(attack), type(attack).__name__
    for field in dataclasses.fields(attack):  # type: ignore[arg-type]
        count, usual = values[field.name], field.default
        if field.name not in (*STEP_NAMES, *QUERY_NAMES) or isinstance(count, bool):
            continue
        if isinstance(count, int) and isinstance(usual, int) and SOURCE_SHARE * count < usual:
            return field.name, name, count, usual, library or "its source"
    return None
