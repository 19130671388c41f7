"""Flags of attacks that took no gradient of their model, and of models that saw only noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gibbon.attacks.base import SearchMethod
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


def noise_only_flags(cells: Sequence[ComparedCell]) -> Iterator[Flag]:
    """Yields a flag for each model that nothing but noise was tried on."""
    searched = {
        (each.dataset, each.model)
        for each in cells
        if each.attacker.method is not SearchMethod.NOISE
    }
    noise = dict.fromkeys((each.dataset, each.model) for each in cells)
    for dataset, model in noise:
        if (dataset, model) not in searched:
            attacks = dict.fromkeys(each.label for each in cells if each.model == model)
            yield Flag(
                kind="noise-only",
                dataset=dataset,
                model=model,
                figure=", ".join(attacks),
                sentence=f"nothing but noise was tried ({', '.join(attacks)}), which does not look "
                "for adversarial examples",
                suite='[[experiments.attacks]]\nname = "pgd"',
            )
