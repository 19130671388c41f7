"""Attacks beside each other on one model: how many they mislead, how near, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gibbon.records.run import Evaluation
from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import Cut, Results, adversarial_error
from gibbon.report.content.number_format import interval, length, percent, yes_no
from gibbon.specs.suite import AttackSpec, Experiment

COMPARED = "Attacks compared"
COMPARED_NOTES = (
    "On one model, sorted by norm, ε and clipping, then by error: of all examples, those whose "
    "adversarial example is misclassified, with its Wilson 95 % interval. Median distance: of the "
    "nearest adversarial examples, where the attack looks for them.",
    "Forward, backward: passes of the model, an example; those that several ε share are counted "
    "once, at the first of them. Seconds are of the machine of the run, and depend on what else it "
    "did: compare passes.",
)
_FEWEST = 3  # two attacks compare themselves in the evaluations
_OURS = "here"
_Place = tuple[str, float, bool, float]


def comparison_tables(results: Results) -> Iterator[Table]:
    """Yields a table for each experiment of one model and three attacks or more."""
    for experiment in results.experiments:
        if len(experiment.models) != 1 or len(experiment.attacks) < _FEWEST:
            continue
        (model,) = experiment.models
        libraries = any(_library(attack) != _OURS for attack in experiment.attacks)
        rows = [
            _row(results, experiment, attack, cut, libraries=libraries)
            for attack in experiment.attacks
            for cut in results.cuts(experiment)
            if cut.attack == attack.label
        ]
        yield Table(
            title=f"on {experiment.dataset.name}: {model.name}",
            columns=(
                Column("Attack", "left"),
                *([Column("Library", "left", level=1)] if libraries else []),
                Column("Norm", "left"),
                Column("ε"),
                Column("Clipped", level=2),
                Column("Error"),
                Column("95 % interval", level=1),
                Column("Median distance"),
                Column("Forward"),
                Column("Backward"),
                Column("Seconds"),
                Column("Iterate kept", "left", level=2),
            ),
            rows=tuple(row for _, row in sorted(rows, key=lambda each: each[0])),
        )


def _row(
    results: Results, experiment: Experiment, attack: AttackSpec, cut: Cut, *, libraries: bool
) -> tuple[_Place, tuple[Cell, ...]]:
    """Returns the row of an attack at an epsilon, and its place among the others."""
    (model,) = experiment.models
    found = results.evaluation(cut, model.name)
    norm = (found.norm if found else None) or attack.norm
    whose = (_library(attack, found),) if libraries else ()
    where = (norm.symbol if norm else NOTHING, str(cut.epsilon), yes_no(attack.clip))
    head = (attack.label, *whose, *where)
    if found is None or found.status == "failed" or not found.examples:
        word = FAILED if results.state(cut, model.name) == "failed" else NOT_RUN
        # Last among those of its norm; where none is known, last of all.
        place = (norm.symbol if norm else "~", float(cut.epsilon), attack.clip, 1.0)
        return place, cells(*head, word, *[NOTHING] * 6)
    error = adversarial_error(found)
    place = (norm.symbol if norm else "~", float(cut.epsilon), attack.clip, -(error.rate or 0.0))
    return place, cells(
        *head,
        percent(error.rate),
        interval(error.low, error.high, rate=error.rate),
        length(found.nearest_median),
        _each(found.forward_passes, found),
        _each(found.backward_passes, found),
        f"{found.seconds:.1f}",
        found.iterate or NOTHING,
    )


def _library(attack: AttackSpec, found: Evaluation | None = None) -> str:
    """Returns whose an attack is: the library and its version once it was run."""
    scheme, colon, _ = attack.name.partition(":")
    if not colon:
        return _OURS
    said = json.loads(found.parameters) if found and found.parameters else {}
    return str(said.get("release", scheme))


def _each(passes: int, found: Evaluation) -> str:
    """Returns passes an example.

    >>> _each(2050, Evaluation(dataset="d", model="m", attack="a", epsilon="0.1", examples=100))
    '20.5'
    """
    return f"{passes / found.examples:,.1f}".removesuffix(".0")
