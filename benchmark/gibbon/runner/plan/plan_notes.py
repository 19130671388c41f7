"""Sentences about a plan that the user should read before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator

from gibbon.runner.plan.planned import Plan


def plan_notes(plan: Plan) -> Iterator[str]:
    """Yields what the user should know before anything is computed."""
    for experiment in plan.all_experiments:
        if experiment.dataset.class_order:
            yield f"{experiment.spec.dataset.name}: classes: {experiment.dataset.class_order}"
        for note in experiment.dataset.notes:
            yield f"{experiment.spec.dataset.name}: {note}"
        for model in experiment.models:
            for note in model.card.notes:
                yield f"{model.name}: {note}"
        yield from map(str, experiment.flags)
