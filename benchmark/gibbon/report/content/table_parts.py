"""Cells and notes that several tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.records.run import Evaluation
from gibbon.report.content.lookup import Condition, RunLookup
from gibbon.report.content.number_format import parameters_text
from gibbon.specs.suite import AttackSpec, Experiment


def _attack_notes(
    results: RunLookup, experiment: Experiment, attacks: Sequence[AttackSpec]
) -> Iterator[str]:
    for attack in attacks:
        yield f"`{attack.label}`: {_attack_text(results, experiment, attack)}."


def _attack_text(results: RunLookup, experiment: Experiment, attack: AttackSpec) -> str:
    found = _any_done(results, experiment, attack)
    norm = (found.norm if found else None) or attack.norm
    name = attack.name if attack.name != attack.label else ""
    words = [name, norm.symbol if norm else "", _clipping(attack.clip)]
    if found and found.iterate:
        words.append(f"iterate kept: {found.iterate}")
    if found:
        words.append(parameters_text(found.parameter_values))
    return ", ".join(word for word in words if word)


def _any_done(results: RunLookup, experiment: Experiment, attack: AttackSpec) -> Evaluation | None:
    return next(_evaluated(results, experiment, attack), None)


def _evaluated(
    results: RunLookup, experiment: Experiment, attack: AttackSpec, *, model: str | None = None
) -> Iterator[Evaluation]:
    """Yields the finished evaluations of an attack, on one model or on all."""
    for name in [model] if model is not None else [each.name for each in experiment.models]:
        for condition in results.attack_conditions(experiment, attack):
            found = results.evaluation(condition, name)
            if found is not None and found.status == "done":
                yield found


def _clipping(clip: bool) -> str:
    return "clipped to the input's bounds" if clip else "not clipped"


def _condition_notes(
    results: RunLookup, experiment: Experiment, condition: Condition
) -> Iterator[str]:
    own = [attack for attack in experiment.attacks if attack.label == condition.attack]
    return _attack_notes(results, experiment, own)
