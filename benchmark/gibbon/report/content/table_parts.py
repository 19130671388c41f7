"""Cells and notes that several tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.core.threat import Epsilon
from gibbon.records.run import Evaluation
from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING, Cell
from gibbon.report.content.lookup import Cut, Measured, Results, State
from gibbon.report.content.number_format import interval, parameters_in_words, percent
from gibbon.specs.suite import AttackSpec, Experiment


def _attack_notes(
    results: Results, experiment: Experiment, attacks: Sequence[AttackSpec]
) -> Iterator[str]:
    for attack in attacks:
        yield f"`{attack.label}`: {_attack_in_words(results, experiment, attack)}."


def _attack_in_words(results: Results, experiment: Experiment, attack: AttackSpec) -> str:
    found = _any_done(results, experiment, attack)
    norm = (found.norm if found else None) or attack.norm
    name = attack.name if attack.name != attack.label else ""
    words = [name, norm.symbol if norm else "", _clipping(attack.clip)]
    if found and found.iterate:
        words.append(f"iterate kept: {found.iterate}")
    if found:
        words.append(parameters_in_words(found.parameters))
    return ", ".join(word for word in words if word)


def _any_done(results: Results, experiment: Experiment, attack: AttackSpec) -> Evaluation | None:
    return next(_evaluated(results, experiment, attack), None)


def _evaluated(
    results: Results, experiment: Experiment, attack: AttackSpec, *, model: str | None = None
) -> Iterator[Evaluation]:
    """Yields what was measured of an attack, on one model or on all."""
    for name in [model] if model is not None else [each.name for each in experiment.models]:
        for epsilon in attack.epsilon:
            found = results.evaluation(_cut(experiment, attack, epsilon), name)
            if found is not None and found.status == "done":
                yield found


def _clipping(clip: bool) -> str:
    return "clipped to the input's bounds" if clip else "not clipped"


def _cut_in_words(results: Results, experiment: Experiment, cut: Cut) -> str:
    attack = next(each for each in experiment.attacks if each.label == cut.attack)
    return f"`{cut.attack}`: {_attack_in_words(results, experiment, attack)}."


_ZERO = Epsilon.parse("0")


def _on(dataset: str) -> str:
    return f"on {dataset}"


def _cut(experiment: Experiment, attack: AttackSpec, epsilon: Epsilon) -> Cut:
    return Cut(experiment.dataset.name, attack.label, epsilon)


def _word(state: State) -> str:
    return {"failed": FAILED, "not run": NOT_RUN}.get(state, NOTHING)


def rate_cell(measured: Measured, *, clean: bool = False) -> Cell:
    """Returns a rate with its interval as detail, or the word for why there is none."""
    if measured.state != "done":
        return Cell(_word(measured.state))
    if measured.low is None or measured.high is None:
        return Cell(percent(measured.rate, clean=clean))
    return Cell(
        percent(measured.rate, clean=clean),
        interval(measured.low, measured.high, rate=measured.rate, clean=clean),
    )
