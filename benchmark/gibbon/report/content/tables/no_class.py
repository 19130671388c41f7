"""The tables of inputs that belong to no class: false positives, their classes, fooling images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gibbon.records.no_class import FoolingRate, NoClassEvaluation, NoClassShare
from gibbon.report.content.parts.layout import (
    FAILED,
    NOTHING,
    ChapterKind,
    Column,
    Row,
    Table,
    TableCell,
    cells,
    columns,
)
from gibbon.report.content.parts.lookup import Measured, RunLookup, no_class_rate
from gibbon.report.content.parts.number_format import (
    count,
    count_of,
    interval,
    mean_cell,
    percent,
    rate_cell,
    state_cell,
)
from gibbon.specs.suite import Experiment

MOST_CLASSES = 20  # rows of a table of classes; the CSV files have all
_NOTES = (
    "False positive: an input of no class to whose predicted class the model gives a probability "
    "above the threshold. Probability: the model's confidence, the softmax maximum unless the "
    "model declares otherwise (an independent sigmoid's or an RBF unit's own output).",
    "AUROC: the probability that the model is surer of an input with a class than of one without, "
    "ties counted half; 50 % is a guess. FPR at 95 % TPR: the share of inputs without a class that "
    "are accepted at the confidence that 95 % of those with a class reach. Intervals: Wilson's for "
    f"rates, BCa for means, DeLong's for AUROC. {NOTHING.text} without a dataset with classes to "
    "compare with, and for a mean over no false positives.",
)


def no_class_tables(results: RunLookup, *, brief: bool = False) -> Iterator[Table]:
    """Yields the tables of each dataset of inputs without a class.

    ``brief`` leaves out the tables of classes.
    """
    for experiment in results.without_classes:
        name = experiment.dataset.name
        found = {each.model: each for each in results.record.no_class if each.dataset == name}
        yield Table.on(
            name,
            (
                Column("Model", "left"),
                Column("False positives", bar=True),
                Column("95 % interval", level=1),
                Column("Count", level=2),
                Column("Confidence on false positives"),
                Column("Mean confidence", level=1),
                Column("Taken for", "left"),
                Column("AUROC"),
                Column("FPR at 95 % TPR"),
                *([Column("Fooling rate")] if experiment.fooling is not None else []),
                Column("Draws", level=2),
            ),
            (_row(each.name, found.get(each.name), experiment) for each in experiment.models),
            detail=f": a class with a probability above {experiment.threshold:g}",
            notes=_notes(results, experiment),
        )
        if not brief:
            shares = [each for each in results.record.no_class_shares if each.dataset == name]
            yield from _class_tables(experiment, shares)
            fooling = [each for each in results.record.fooling if each.dataset == name]
            yield from _fooling_tables(experiment, fooling)


NO_CLASS = ChapterKind("Inputs without a class", no_class_tables, _NOTES)


def _row(model: str, found: NoClassEvaluation | None, experiment: Experiment) -> Row:
    last = 1 if experiment.fooling is not None else 0
    if found is None or found.status == "failed":
        word = FAILED if found is not None else state_cell("not run")
        nothing = [NOTHING] * (7 + last)
        return cells(model, word, NOTHING, *nothing)
    rate = no_class_rate(found, "false_positive_rate")
    fooling = rate_cell(no_class_rate(found, "fooling_rate"))
    top: TableCell | str = NOTHING
    if found.top_class_share is not None:
        top = TableCell(found.top_class, str(percent(found.top_class_share)))
    return cells(
        model,
        percent(rate.rate),
        interval(rate),
        count_of(found.false_positives, found.examples),
        mean_cell(
            found.confidence_on_false_positives,
            found.confidence_on_false_positives_low,
            found.confidence_on_false_positives_high,
        ),
        mean_cell(found.mean_confidence, found.mean_confidence_low, found.mean_confidence_high),
        top,
        rate_cell(no_class_rate(found, "auroc")),
        rate_cell(no_class_rate(found, "false_positive_rate_at_95_tpr")),
        *([fooling] if last else []),
        count(found.draws if found.draws > 1 else None),
    )


def _notes(results: RunLookup, experiment: Experiment) -> Iterator[str]:
    card = results.record.dataset_cards.get(experiment.dataset.name)
    yield from card.notes if card is not None else ()
    clean = results.record.suite.clean_experiment(experiment)
    if clean is None:
        yield "Compared with no dataset with classes: name one with against."
    else:
        yield f"AUROC and FPR against the inputs of {clean.dataset.name}, unattacked."
    fooling = experiment.fooling
    if fooling is not None:
        towards = {
            "gradient": "the gradient of the class's probability",
            "unit": "the gradient of the class's probability, divided by its L2 norm",
            "sign": "the sign of the gradient of the class's probability",
        }[fooling.direction]
        yield (
            f"Fooling rate: from each input one step of {fooling.step} times {towards}, towards "
            "each class; the share of steps after which the model takes the image for that class "
            "with a probability above the threshold."
        )


def _class_tables(experiment: Experiment, rows: Sequence[NoClassShare]) -> Iterator[Table]:
    """Yields the shares of the classes among the false positives, a column a model."""
    models = [each.name for each in experiment.models]
    found = {(each.of_class, each.model): each for each in rows if each.false_positives}
    models = [name for name in models if any(model == name for _, model in found)]
    totals: dict[str, int] = {}
    for each in rows:
        totals[each.of_class] = totals.get(each.of_class, 0) + each.count
    if not models:
        return
    shown, notes = _largest(totals)
    yield Table.on(
        experiment.dataset.name,
        (Column("Class", "left"), *columns(*models)),
        (
            (TableCell(name), *(_share(found.get((name, model))) for model in models))
            for name in shown
        ),
        detail=": share of each class among the false positives",
        notes=notes,
    )


def _share(found: NoClassShare | None) -> TableCell:
    if found is None:
        return NOTHING
    measured = Measured("done", found.share, found.share_low, found.share_high)
    return rate_cell(measured)


def _fooling_tables(experiment: Experiment, rows: Sequence[FoolingRate]) -> Iterator[Table]:
    """Yields the fooling rate of each wanted class, a column a model."""
    found = {(each.of_class, each.model): each for each in rows}
    if not found:
        return
    models = [each.name for each in experiment.models if any(each.name == m for _, m in found)]
    rates: dict[str, float] = {}
    for each in rows:
        rates[each.of_class] = rates.get(each.of_class, 0.0) + (each.fooling_rate or 0.0)
    shown, notes = _largest(rates)
    yield Table.on(
        experiment.dataset.name,
        (Column("Wanted class", "left"), *columns(*models)),
        (
            (TableCell(name), *(_fooled(found.get((name, model))) for model in models))
            for name in shown
        ),
        detail=": fooling images",
        notes=notes,
    )


def _fooled(found: FoolingRate | None) -> TableCell:
    if found is None:
        return NOTHING
    if found.status == "failed":
        return FAILED
    return rate_cell(
        Measured("done", found.fooling_rate, found.fooling_rate_low, found.fooling_rate_high)
    )


def _largest(values: dict[str, float] | dict[str, int]) -> tuple[list[str], tuple[str, ...]]:
    """Returns the classes to show, in their order, and a note if there are more."""
    names = list(values)
    if len(names) <= MOST_CLASSES:
        return names, ()
    largest = sorted(names, key=lambda name: -values[name])[:MOST_CLASSES]
    return [each for each in names if each in largest], (
        f"The {MOST_CLASSES} largest of {len(names):,} classes; the CSV files have all.",
    )
