"""Tables that compare attacks, and of the errors that the naive gradient misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from gibbon.core.errors import RecordError, UnknownNameError
from gibbon.core.threat import Epsilon
from gibbon.records.run import Evaluation
from gibbon.report.content.parts.layout import NOTHING, Column, Table, TableCell, cells, columns
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.parts.number_format import count, percent, points, rate_cell
from gibbon.specs.suite import AttackSpec, Experiment

BESIDE_NOTES = (
    "Error of all examples, with its Wilson 95 % interval. Attacks stay in the input's range, "
    "except those marked “not clipped”.",
)
DIRECTION_NOTES = (
    "FGSM along the exact direction, and along the gradient as float32 forms it; neither is "
    "clipped. Difference: points of error that the naive gradient misses (−) or adds (+).",
    "Saturated: share of examples whose softmax is 1 for the true class in float32. Zero gradient: "
    "share whose naive gradient is zero throughout.",
)
_EXACT, _NAIVE = "fgsm", "fgsm-naive"


def side_by_side_table(results: RunLookup, attacks: Sequence[str]) -> Table:
    """Returns a table with a row for each model and epsilon and a column for each attack label.

    Experiments with fewer than two of the attacks are left out.  Raises `UnknownNameError` if no
    experiment has an attack, `RecordError` if none has two.
    """
    known = {each.label: each for one in results.experiments for each in one.attacks}
    for label in attacks:
        if label not in known:
            raise UnknownNameError("attack", label, known=known)
    rows = tuple(
        row
        for experiment in results.experiments
        if len(_among(experiment, attacks)) > 1
        for row in _side_by_side_rows(results, experiment, attacks)
    )
    if not rows:
        raise RecordError(f"no experiment has two of the attacks {', '.join(attacks)}")
    heads = [f"{label}{'' if known[label].clip else ', not clipped'}" for label in attacks]
    return Table(
        title="Attacks beside each other",
        columns=(
            Column("Dataset", "left", level=2),
            Column("Model", "left"),
            *columns("Examples", "ε", "Clean"),
            *(Column(head) for head in heads),
        ),
        rows=rows,
        notes=BESIDE_NOTES,
    )


def direction_table(results: RunLookup) -> Table:
    """Returns FGSM in the exact and in the naive direction, for every model that has both.

    Raises `RecordError` if no model has.
    """
    rows = tuple(
        row for experiment in results.experiments for row in _direction_rows(results, experiment)
    )
    if not rows:
        raise RecordError("no experiment has `fgsm` and `fgsm-naive` at the same ε, not clipped")
    return Table(
        title="Exact and naive direction",
        columns=(
            *columns("Model", "Dataset", align="left"),
            *columns("ε", "Exact", "Naive", "Difference", "Saturated", "Zero gradient"),
        ),
        rows=rows,
        notes=DIRECTION_NOTES,
    )


def _among(experiment: Experiment, labels: Sequence[str]) -> list[AttackSpec]:
    return [each for each in experiment.attacks if each.label in labels]


def _side_by_side_rows(
    results: RunLookup, experiment: Experiment, labels: Sequence[str]
) -> Iterator[tuple[TableCell, ...]]:
    name = experiment.dataset.name
    epsilons = {each for attack in _among(experiment, labels) for each in attack.epsilon}
    for model, epsilon in product(experiment.models, sorted(epsilons)):
        unattacked = results.evaluation(Condition.unattacked(name), model.name)
        yield cells(
            name,
            model.name,
            count(unattacked.examples if unattacked else None),
            epsilon,
            rate_cell(results.error(Condition.unattacked(name), model.name), clean=True),
            *(
                rate_cell(results.error(Condition(name, each, epsilon), model.name))
                for each in labels
            ),
        )


def _direction_rows(results: RunLookup, experiment: Experiment) -> Iterator[tuple[TableCell, ...]]:
    name = experiment.dataset.name
    for model, (exact, naive, epsilon) in product(experiment.models, _pairs(experiment)):
        one = results.error(Condition(name, exact, epsilon), model.name)
        other = results.error(Condition(name, naive, epsilon), model.name)
        found = results.evaluation(Condition(name, naive, epsilon), model.name)
        yield cells(
            model.name,
            name,
            epsilon,
            rate_cell(one),
            rate_cell(other),
            points(other.rate, one.rate) if one.rate is not None else NOTHING,
            *_shares(found),
        )


def _pairs(experiment: Experiment) -> Iterator[tuple[str, str, Epsilon]]:
    """Yields the labels of exact and naive FGSM, not clipped, at each epsilon that both have."""
    free = [each for each in experiment.attacks if not each.clip]
    for exact, naive in product(free, free):
        if (exact.name, naive.name) == (_EXACT, _NAIVE):
            for epsilon in sorted(set(exact.epsilon) & set(naive.epsilon)):
                yield exact.label, naive.label, epsilon


def _shares(found: Evaluation | None) -> tuple[TableCell, TableCell]:
    if found is None:
        return NOTHING, NOTHING
    return percent(found.saturated_share), percent(found.zero_gradient_share)
