"""The main table of a run: models by attacks, for a paper.

A row is a model, a column one measure under one attack at one epsilon.  The best model of a column
is marked, unless a serious flag affects its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.core.threat import Epsilon
from gibbon.records.run import Evaluation, RunRecord, WorstCase, complement
from gibbon.report.content.parts.flag_groups import MARK
from gibbon.report.content.parts.lookup import (
    Condition,
    Measured,
    RunLookup,
    adversarial_error,
    clean_error,
    robust_accuracy,
    success_rate,
)
from gibbon.report.content.parts.table_parts import any_done
from gibbon.specs.suite import AttackSpec, Experiment

Of = Literal["model", "attack", "threat"]


@dataclass(frozen=True)
class Measure:
    """A measure that a column of the main table shows.

    Args:
        name: its name on the command line.
        title: its heading.
        of: whether there is a column in all, one an attack, or one a threat model.
        higher: whether a higher value is better.
        meaning: a sentence for the caption.
    """

    name: str
    title: str
    of: Of
    higher: bool
    meaning: str


def _clean_accuracy(found: Evaluation) -> Measured:
    wrong = clean_error(found)
    return replace(
        wrong,
        rate=complement(wrong.rate),
        low=complement(wrong.high),
        high=complement(wrong.low),
        part=None,
    )


def _confidence(found: Evaluation) -> Measured:
    ends = found.confidence_on_misclassified_low, found.confidence_on_misclassified_high
    return Measured(found.status, found.confidence_on_misclassified, *ends)


MEASURES: Final = {
    each.name: each
    for each in (
        Measure("clean", "Clean", "model", True, "Clean: accuracy without an attack."),
        Measure(
            "robust-accuracy",
            "Robust accuracy",
            "attack",
            True,
            "Robust accuracy: share of all examples classified correctly clean and under the "
            "attack.",
        ),
        Measure(
            "worst-case",
            "Worst case",
            "threat",
            True,
            "Worst case: robust accuracy over all attacks of the threat model together.",
        ),
        Measure(
            "adversarial-error",
            "Adversarial error",
            "attack",
            False,
            "Adversarial error: share of all examples misclassified under the attack.",
        ),
        Measure(
            "success-rate",
            "Success rate",
            "attack",
            False,
            "Success rate: share misclassified under the attack, of the examples classified "
            "correctly clean.",
        ),
        Measure(
            "confidence",
            "Confidence on misclassified",
            "attack",
            False,
            "Confidence on misclassified: mean over the misclassified examples.",
        ),
    )
}
DEFAULT: Final = ("clean", "robust-accuracy", "worst-case")
_OF_ATTACK: Final[dict[str, Callable[[Evaluation], Measured]]] = {
    "clean": _clean_accuracy,
    "robust-accuracy": robust_accuracy,
    "adversarial-error": adversarial_error,
    "success-rate": success_rate,
    "confidence": _confidence,
}


@dataclass(frozen=True)
class MainColumn:
    """A column: a measure, and the attack at an epsilon or the threat model that it is under.

    ``distinction`` says how a threat model differs from those of other columns.
    """

    measure: Measure
    attack: str = ""
    epsilon: Epsilon | None = None
    norm: str = ""
    clip: bool | None = None
    distinction: str = ""


@dataclass(frozen=True)
class MainCell:
    """A cell: a measured number, with whether it is the best of its column."""

    measured: Measured
    best: bool = False

    @property
    def mark(self) -> str:
        """The mark of a number with a serious flag; else empty."""
        return MARK if any(each.severity == "serious" for each in self.measured.flags) else ""


@dataclass(frozen=True)
class MainRow:
    """A row: a model on a dataset, with a cell for each column."""

    dataset: str
    model: str
    cells: tuple[MainCell, ...]


@dataclass(frozen=True)
class MainTable:
    """The main table, with the sentences of its caption."""

    columns: tuple[MainColumn, ...]
    rows: tuple[MainRow, ...]
    caption: tuple[str, ...]


@dataclass(frozen=True)
class MainTableChoice:
    """The columns, models and attacks that a main table shows; all, or the usual ones, if empty.

    An attack may be followed by an epsilon, as in ``fgsm@8/255``; else its largest is taken.
    """

    columns: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()


def main_table(record: RunRecord, choice: MainTableChoice) -> MainTable:
    """Returns the main table of a run.

    Raises `UnknownNameError` or `SpecError` for a column, model, attack or epsilon that the run
    lacks.
    """
    results = RunLookup(record)
    measures = _measures(choice.columns)
    models = _models(results, choice.models)
    attacks = _attacks(results, choice.attacks)
    chosen = [each for each in attacks if any(_runs(one, each) for one in results.experiments)]
    columns = tuple(_columns(results, measures, chosen))
    rows = [
        MainRow(
            experiment.dataset.name,
            model.name,
            tuple(MainCell(_measured(results, experiment, model.name, each)) for each in columns),
        )
        for experiment in results.experiments
        for model in experiment.models
        if model.name in models and any(_runs(experiment, each) for each in chosen)
    ]
    if not rows:
        raise SpecError("no model of this run was attacked: there is no table of models by attacks")
    kept = [at for at, _ in enumerate(columns) if any(_shown(row.cells[at]) for row in rows)]
    columns = tuple(columns[at] for at in kept)
    rows = [replace(row, cells=tuple(row.cells[at] for at in kept)) for row in rows]
    return MainTable(
        columns, tuple(_with_best(rows, columns)), tuple(_caption(results, columns, rows))
    )


_Chosen = tuple[str, Epsilon]


def _shown(cell: MainCell) -> bool:
    return cell.measured.state != "not run"


def _measures(names: Sequence[str]) -> list[Measure]:
    for name in names:
        if name not in MEASURES:
            raise UnknownNameError("column", name, known=MEASURES, where="--columns")
    return [MEASURES[name] for name in dict.fromkeys(names or DEFAULT)]


def _models(results: RunLookup, names: Sequence[str]) -> set[str]:
    known = {model.name for each in results.experiments for model in each.models}
    for name in names:
        if name not in known:
            raise UnknownNameError("model", name, known=known, where="--models")
    return set(names) or known


def _attacks(results: RunLookup, names: Sequence[str]) -> list[_Chosen]:
    """Returns the chosen attacks with their epsilons, each in its largest if none is named."""
    specs: dict[str, set[Epsilon]] = {}
    for experiment in results.experiments:
        for spec in experiment.attacks:
            specs.setdefault(spec.label, set()).update(spec.epsilon)
    found: list[_Chosen] = []
    for written in names or specs:
        label, _, text = (written, "", "") if written in specs else written.rpartition("@")
        if label not in specs:
            raise UnknownNameError("attack", label or written, known=specs, where="--attacks")
        epsilon = Epsilon.parse(text, where="--attacks") if text else max(specs[label])
        same = [each for each in specs[label] if each == epsilon]
        if not same:
            there = ", ".join(map(str, sorted(specs[label])))
            raise SpecError(
                f"{label} has no epsilon {epsilon}; there are {there}", where="--attacks"
            )
        found.append((label, same[0]))
    return list(dict.fromkeys(found))


def _runs(experiment: Experiment, chosen: _Chosen) -> bool:
    label, epsilon = chosen
    return any(each.label == label and epsilon in each.epsilon for each in experiment.attacks)


def _spec(results: RunLookup, label: str) -> tuple[Experiment, AttackSpec]:
    return next(
        (experiment, spec)
        for experiment in results.experiments
        for spec in experiment.attacks
        if spec.label == label
    )


def _columns(
    results: RunLookup, measures: Iterable[Measure], chosen: Sequence[_Chosen]
) -> Iterator[MainColumn]:
    conditions = [_under(results, *each) for each in chosen]
    threats = dict.fromkeys((each.norm, each.clip, each.epsilon) for each in conditions)
    for measure in measures:
        if measure.of == "model":
            yield MainColumn(measure)
        elif measure.of == "attack":
            yield from (replace(each, measure=measure) for each in conditions)
        elif len(conditions) > 1:
            for norm, clip, epsilon in threats:
                words = [norm] if len({each[0] for each in threats}) > 1 else []
                if len({each[1] for each in threats}) > 1:
                    words.append("clipped" if clip else "not clipped")
                yield MainColumn(measure, "", epsilon, norm, clip, ", ".join(words))


def _under(results: RunLookup, label: str, epsilon: Epsilon) -> MainColumn:
    experiment, spec = _spec(results, label)
    done = any_done(results, experiment, spec)
    norm = (done.norm if done else None) or spec.norm
    symbol = norm.symbol if norm else ""
    return MainColumn(MEASURES["robust-accuracy"], label, epsilon, symbol, spec.clip)


def _measured(
    results: RunLookup, experiment: Experiment, model: str, column: MainColumn
) -> Measured:
    dataset = experiment.dataset.name
    if column.measure.of == "threat":
        worst = _worst(results, dataset, model, column)
        if worst is None:
            return Measured("not run")
        return replace(robust_accuracy(worst), flags=results.flags(worst))
    condition = Condition.unattacked(dataset)
    if column.measure.of == "attack" and column.epsilon is not None:
        condition = Condition(dataset, column.attack, column.epsilon)
    found = results.evaluation(condition, model)
    if found is None or found.status == "failed":
        return Measured(results.state(condition, model))
    clean = column.measure.of == "model"
    measured = _OF_ATTACK[column.measure.name](found)
    return replace(measured, flags=results.flags(found, clean=clean))


def _worst(results: RunLookup, dataset: str, model: str, column: MainColumn) -> WorstCase | None:
    key = (dataset, model, column.norm, column.clip, column.epsilon)
    return next(
        (
            each
            for each in results.record.worst_cases
            if (each.dataset, each.model, each.norm.symbol, each.clip, each.epsilon) == key
        ),
        None,
    )


def _with_best(rows: Sequence[MainRow], columns: Sequence[MainColumn]) -> Iterator[MainRow]:
    """Yields the rows with the best numbers of each column, among models on one dataset, marked."""
    best: dict[tuple[str, int], float] = {}
    for at, column in enumerate(columns):
        for dataset in {row.dataset for row in rows}:
            cells = [row.cells[at] for row in rows if row.dataset == dataset]
            rates = [
                each.measured.rate
                for each in cells
                if each.measured.rate is not None and not each.mark
            ]
            if len(cells) > 1 and rates:
                best[dataset, at] = (max if column.measure.higher else min)(rates)
    for row in rows:
        marked = (
            replace(cell, best=not cell.mark and cell.measured.rate == best.get((row.dataset, at)))
            if cell.measured.rate is not None
            else cell
            for at, cell in enumerate(row.cells)
        )
        yield replace(row, cells=tuple(marked))


def _caption(
    results: RunLookup, columns: Sequence[MainColumn], rows: Sequence[MainRow]
) -> Iterator[str]:
    """Yields the sentences of the caption, made from the suite."""
    suite = results.record.suite
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    cards = results.record.dataset_cards
    counts = [
        f"{name} ({cards[name].examples:,} examples)" if name in cards else name
        for name in datasets
    ]
    what = ", ".join(dict.fromkeys(each.measure.title.lower() for each in columns))
    yield f"{suite.title or suite.name}: {what}, in %, on {', '.join(counts)}."
    yield from dict.fromkeys(each.measure.meaning for each in columns)
    threats = dict.fromkeys(
        (each.norm, each.epsilon, each.clip) for each in columns if each.epsilon is not None
    )
    for norm, epsilon, clip in threats:
        box = "clipped to the bounds of the inputs" if clip else "not clipped"
        yield f"Perturbations: {norm}, ε = {epsilon}, {box}."
    yield from _attack_sentences(results, columns)
    yield "In brackets: 95 % intervals (Wilson; of confidences, bootstrap)."
    if any(cell.best for row in _with_best(rows, columns) for cell in row.cells):
        yield "Bold: the best of a column, of numbers without a serious flag."
    if any(cell.mark for row in rows for cell in row.cells):
        yield f"{MARK} A serious flag affects this number."


def _attack_sentences(results: RunLookup, columns: Sequence[MainColumn]) -> Iterator[str]:
    for label in dict.fromkeys(each.attack for each in columns if each.attack):
        experiment, spec = _spec(results, label)
        done = any_done(results, experiment, spec)
        values = done.parameter_values if done else {}
        words = [
            f"{values[key]} {key}"
            for key in ("steps", "restarts", "queries")
            if values.get(key, 1) != 1
        ]
        if done and (listed := results.listed_attacks(done)):
            words.append(", ".join(listed))
        if words:
            yield f"{label}: {', '.join(words)}."
