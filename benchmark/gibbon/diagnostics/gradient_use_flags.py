"""Flags of attacks that took no gradient of the model that they were run on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from gibbon.diagnostics.order_flags import ComparedCell
from gibbon.records.flags import Flag

MOST_ERRORS = 0.99  # of the examples: an attack that finds these needs no gradient


def gradient_use_flags(cells: Iterable[ComparedCell]) -> Iterator[Flag]:
    """Yields the flags of attacks that need gradients, by their declaration, and took none.

    Such an attack follows another model, or nothing.  Backward passes of the model are counted
    whoever makes them.
    """
    for cell in cells:
        attacker, outcome = cell.attacker, cell.outcome
        if not attacker.attack.needs_gradient or attacker.took_gradients:
            continue
        asked = ~cell.clean  # a list attacks no clean mistakes
        if not asked.any() or np.mean(outcome.any_misclassified) >= MOST_ERRORS:
            continue
        yield Flag(
            kind="no-gradient-taken",
            dataset=cell.dataset,
            model=cell.model,
            attack=cell.label,
            epsilon=attacker.threat.epsilon,
            figure="0 backward passes",
            sentence="the attack needs gradients, as it declares, and took none of this model",
        )
