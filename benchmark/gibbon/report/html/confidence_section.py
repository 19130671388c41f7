"""The section of the page on confidence: histograms of each model, and a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.confidence import BINS, Confidences, cell_key, confidences
from gibbon.report.content.parts.layout import NOTHING, Row, Table, cells, columns
from gibbon.report.content.parts.lookup import Condition, RunLookup, largest_epsilons
from gibbon.report.content.parts.number_format import count, percent
from gibbon.report.html.charts import Histogram, histogram
from gibbon.specs.base import UNATTACKED
from gibbon.specs.suite import Experiment

CONFIDENCE_NOTES: Final = (
    "Confidence: the model's probability for the class it predicts; the softmax maximum unless the "
    f"model declares otherwise. {BINS} equal bins from 0 to 100 %. The largest bin of each picture "
    "fills it: compare shapes between pictures, and counts by the texts below. Attacked: at the "
    "largest ε of each attack; the table has every ε.",
)


@dataclass(frozen=True)
class ModelHistograms:
    """The histograms of one model on one dataset."""

    title: str
    histograms: tuple[Histogram, ...]


def confidence_content(
    record: RunRecord, results: RunLookup, folder: Path
) -> tuple[tuple[Table, ...], list[ModelHistograms]]:
    """Returns the tables of the section, and the histograms of each model."""
    found = confidences(record, folder)
    models: list[ModelHistograms] = []
    tables: list[Table] = []
    for experiment in results.experiments:
        rows = []
        dataset = experiment.dataset.name
        conditions = [Condition.unattacked(dataset), *results.conditions(experiment)]
        for model in experiment.models:
            known = [
                (condition, found[cell_key(row)])
                for condition in conditions
                if (row := results.evaluation(condition, model.name)) and cell_key(row) in found
            ]
            rows += [_confidence_row(model.name, condition, each) for condition, each in known]
            largest = largest_epsilons(condition for condition, _ in known)
            shown = tuple(
                histogram(str(condition), each)
                for condition, each in known
                if condition == largest[condition.attack]
            )
            if shown:
                title = f"{model.name} on {dataset}"
                models.append(ModelHistograms(title, shown))
        if rows:
            tables.append(_confidence_table(experiment, tuple(rows)))
    return tuple(tables), models


def _confidence_table(experiment: Experiment, rows: tuple[Row, ...]) -> Table:
    return Table.on(
        experiment.dataset.name,
        (
            *columns("Model", "Attack", align="left"),
            *columns("ε", "Right", "Mean confidence, right", "of them at 90 % or more"),
            *columns("Wrong", "Mean confidence, wrong", "of them at 90 % or more"),
        ),
        rows,
    )


def _confidence_row(model: str, condition: Condition, each: Confidences) -> Row:
    return cells(
        model,
        condition.attack,
        NOTHING if condition.attack == UNATTACKED else condition.epsilon,
        *(
            cell
            for of in (each.right, each.wrong)
            for cell in (count(of.examples), percent(of.mean), percent(of.at_least_ninety))
        ),
    )
