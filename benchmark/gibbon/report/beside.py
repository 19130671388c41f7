"""Attacks side by side on the same models: their errors, and what the naive gradient misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from gibbon.core.errors import RecordError, UnknownNameError
from gibbon.core.threat import Epsilon
from gibbon.records.run import Evaluation
from gibbon.report.content.layout import NOTHING, Cell, Column, Table, cells
from gibbon.report.content.lookup import Cut, Measured, Results, adversarial_error, clean_error
from gibbon.report.content.number_format import count, percent, points
from gibbon.report.content.table_parts import rate_cell
from gibbon.specs.suite import AttackSpec, Experiment

BESIDE_NOTES = (
    "Error of all examples, with its Wilson 95 % interval. Attacks stay in the input's range where "
    "nothing else is said; those that leave it are named so.",
)
DIRECTION_NOTES = (
    "FGSM along the exact direction, and along the gradient as float32 forms it; neither is "
    "clipped. Difference: points of error that the naive gradient misses (−) or adds (+).",
    "Saturated: share of examples whose softmax is 1 for the true class in float32. Zero gradient: "
    "share whose naive gradient is zero throughout.",
)
_EXACT, _NAIVE = "fgsm", "fgsm-naive"


def beside_table(results: Results, attacks: Sequence[str]) -> Table:
    """Returns a line for each model and epsilon, a column for each of ``attacks``, by their labels.

    An experiment that has fewer than two of them is left out.  Raises `UnknownNameError` where no
    experiment has an attack, `RecordError` where none has two.
    """
    known = {each.label: each for one in results.experiments for each in one.attacks}
    for label in attacks:
        if label not in known:
            raise UnknownNameError("attack", label, known=known)
    rows = tuple(
        row
        for experiment in results.experiments
        if len(_among(experiment, attacks)) > 1
        for row in _beside_rows(results, experiment, attacks)
    )
    if not rows:
        raise RecordError(f"no experiment has two of the attacks {', '.join(attacks)}")
    heads = [f"{label}{'' if known[label].clip else ', not clipped'}" for label in attacks]
    return Table(
        title="Attacks beside each other",
        columns=(
            Column("Dataset", "left", level=2),
            Column("Model", "left"),
            Column("Examples"),
            Column("ε"),
            Column("Clean"),
            *(Column(head) for head in heads),
        ),
        rows=rows,
        notes=BESIDE_NOTES,
    )


def direction_table(results: Results) -> Table:
    """Returns FGSM in the exact direction beside the naive one, for every model that has both.

    Raises `RecordError` where none has.
    """
    rows = tuple(
        row for experiment in results.experiments for row in _direction_rows(results, experiment)
    )
    if not rows:
        raise RecordError("no experiment has `fgsm` and `fgsm-naive` at the same ε, not clipped")
    return Table(
        title="Exact and naive direction",
        columns=(
            Column("Model", "left"),
            Column("Dataset", "left"),
            Column("ε"),
            Column("Exact"),
            Column("Naive"),
            Column("Difference"),
            Column("Saturated"),
            Column("Zero gradient"),
        ),
        rows=rows,
        notes=DIRECTION_NOTES,
    )


def _among(experiment: Experiment, labels: Sequence[str]) -> list[AttackSpec]:
    return [each for each in experiment.attacks if each.label in labels]


def _beside_rows(
    results: Results, experiment: Experiment, labels: Sequence[str]
) -> Iterator[tuple[Cell, ...]]:
    name = experiment.dataset.name
    asked = {each for attack in _among(experiment, labels) for each in attack.epsilon}
    for model, epsilon in product(experiment.models, sorted(asked)):
        unattacked = results.clean(name, model.name)
        clean = clean_error(unattacked) if unattacked else Measured("not run")
        yield cells(
            name,
            model.name,
            count(unattacked.examples if unattacked else None),
            str(epsilon),
            rate_cell(clean, clean=True),
            *(rate_cell(_error(results, Cut(name, each, epsilon), model.name)) for each in labels),
        )


def _direction_rows(results: Results, experiment: Experiment) -> Iterator[tuple[Cell, ...]]:
    name = experiment.dataset.name
    for model, (exact, naive, epsilon) in product(experiment.models, _pairs(experiment)):
        one = _error(results, Cut(name, exact, epsilon), model.name)
        other = _error(results, Cut(name, naive, epsilon), model.name)
        found = results.evaluation(Cut(name, naive, epsilon), model.name)
        yield cells(
            model.name,
            name,
            str(epsilon),
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


def _shares(found: Evaluation | None) -> tuple[str, str]:
    if found is None:
        return NOTHING, NOTHING
    return percent(found.saturated_share), percent(found.zero_gradient_share)


def _error(results: Results, cut: Cut, model: str) -> Measured:
    found = results.evaluation(cut, model)
    return Measured(results.state(cut, model)) if found is None else adversarial_error(found)
