"""Cells and notes that several tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.records.run import Evaluation
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.parts.number_format import parameters_text
from gibbon.specs.suite import AttackSpec, Experiment


def attack_notes(
    results: RunLookup, experiment: Experiment, attacks: Sequence[AttackSpec]
) -> Iterator[str]:
    """Yields a sentence about each attack: norm, clipping, iterate kept, parameters."""
    for attack in attacks:
        yield f"`{attack.label}`: {_attack_text(results, experiment, attack)}."


def _attack_text(results: RunLookup, experiment: Experiment, attack: AttackSpec) -> str:
    found = any_done(results, experiment, attack)
    norm = (found.norm if found else None) or attack.norm
    name = attack.name if attack.name != attack.label else ""
    clipping = "clipped to the input's bounds" if attack.clip else "not clipped"
    words = [name, norm.symbol if norm else "", clipping]
    if found and found.iterate:
        words.append(f"iterate kept: {found.iterate}")
    if found:
        words.append(parameters_text(found.parameter_values))
    return ", ".join(word for word in words if word)


def class_notes(results: RunLookup, experiment: Experiment) -> Iterator[str]:
    """Yields how the names of a user's classes became labels, and other bounds than [0, 1]."""
    card = results.record.dataset_cards.get(experiment.dataset.name)
    if card is None:
        return
    if card.class_order:
        yield f"Classes: {card.class_order}."
    if card.bounds is not None:
        low, high = card.bounds
        yield f"Inputs are in [{low:g}, {high:g}], and ε is in their units."


def any_done(results: RunLookup, experiment: Experiment, attack: AttackSpec) -> Evaluation | None:
    """Returns a finished evaluation of an attack on any model, if there is one."""
    return next(evaluated(results, experiment, attack), None)


def evaluated(
    results: RunLookup, experiment: Experiment, attack: AttackSpec, *, model: str | None = None
) -> Iterator[Evaluation]:
    """Yields the finished evaluations of an attack, on one model or on all."""
    for name in [model] if model is not None else [each.name for each in experiment.models]:
        for condition in results.attack_conditions(experiment, attack):
            found = results.evaluation(condition, name)
            if found is not None and found.status == "done":
                yield found
