"""The TensorBoard folder of a run: curves, histograms, heat maps, cells and tables.

Each model is one TensorBoard run, ``<dataset>/<model>``, and a measure has the same tag in all of
them, such as ``adversarial_error/fgsm``, so that the curves of several models share one chart.  The
step is epsilon, as a whole number of thousandths of the input's unit; 0 is the unattacked model.
``error_within/<attack>`` is the whole curve of an attack that looks for the nearest example;
``confidence_right`` and ``confidence_wrong`` are histograms, ``gallery`` holds pictures and
``interval`` the ends of the intervals, which the layout of custom scalars draws as bands.  Figures
are in the runs ``_figures`` and ``<dataset>/_figures``, tables in the run ``_tables``.

Each cell with its parameters is a TensorBoard run below ``_cells``, for the dashboard of
hyperparameters.  If there are too many runs to show at once, the cells are written into a separate
folder, `CELLS_FOLDER`: ``tensorboard --logdir RUN/tensorboard_cells``.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from gibbon.core.threat import Epsilon
from gibbon.metrics.nearest import Curve
from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.confidence import CellKey, Confidences, cell_key
from gibbon.report.content.distance_curves import WholeCurves
from gibbon.report.content.gallery import galleries, gallery_sheet
from gibbon.report.content.lookup import Condition, RunLookup
from gibbon.report.content.transfer import MATRICES
from gibbon.report.figures.plots import error_curves_png, transfer_png
from gibbon.report.tensorboard.custom_scalars import INTERVAL, scalar_layout
from gibbon.report.tensorboard.event_file import EventRun
from gibbon.report.tensorboard.hparams import cell_runs
from gibbon.report.text.markdown import chapter_markdown
from gibbon.specs.suite import Experiment

FOLDER: Final = "tensorboard"

# TensorBoard reads files with "tfevents" in their name; the rest identifies files of ours.
EVENTS_FILE: Final = "events.out.tfevents.gibbon"

# No model or dataset has such a name: their names begin with a letter or a digit.
FIGURES_RUN: Final = "_figures"
TABLES_RUN: Final = "_tables"
CELLS_FOLDER: Final = "tensorboard_cells"

# TensorBoard's dashboards show none of more runs than these until they are selected.
_SHOWN_AT_ONCE = 40

_NO_CURVES: Final[WholeCurves] = {}
_NO_CONFIDENCES: Final[Mapping[CellKey, Confidences]] = {}
_WHOLE = "error_within"
_WHOLE_TITLE = "Share of all examples with an adversarial example found within ε, from one search"
_MOST_POINTS = 200  # of an error curve


@dataclass(frozen=True)
class StepUnit:
    """The unit of TensorBoard's steps, which are whole numbers: ``a_unit`` steps are epsilon 1."""

    a_unit: int
    words: str

    def step(self, epsilon: Epsilon) -> int:
        """Returns the step of an epsilon."""
        return round(epsilon.value * self.a_unit)


STEP_UNITS: Final = (
    StepUnit(1_000, "thousandths"),
    StepUnit(1_000_000, "millionths"),
    StepUnit(1_000_000_000, "thousand-millionths"),
)


@dataclass(frozen=True)
class _Scalars:
    """A measure that is drawn against epsilon: its tag, title, and fields of an evaluation.

    ``unattacked`` is empty for a measure that has no value without an attack.
    """

    tag: str
    title: str
    attacked: str
    unattacked: str


_SCALARS: Final = (
    _Scalars(
        "adversarial_error",
        "Share of all examples misclassified under attack",
        "adversarial_error",
        "clean_error",
    ),
    _Scalars(
        "worst_case_error",
        "Share of all examples misclassified clean or by any candidate tried",
        "worst_case_error",
        "clean_error",
    ),
    _Scalars(
        "attack_success_rate",
        "Share misclassified under attack of the examples classified correctly when clean",
        "attack_success_rate",
        "",
    ),
    _Scalars(
        "confidence_on_misclassified",
        "Mean confidence over the misclassified examples",
        "confidence_on_misclassified",
        "confidence_on_misclassified",
    ),
    _Scalars(
        "mean_confidence",
        "Mean confidence over all examples",
        "mean_confidence",
        "mean_confidence",
    ),
    _Scalars(
        f"{INTERVAL}_low",
        "The lower end of the Wilson 95 % interval of the adversarial error",
        "adversarial_error_low",
        "clean_error_low",
    ),
    _Scalars(
        f"{INTERVAL}_high",
        "The upper end of the Wilson 95 % interval of the adversarial error",
        "adversarial_error_high",
        "clean_error_high",
    ),
)


def write_tensorboard(
    record: RunRecord,
    folder: Path,
    *,
    whole: WholeCurves = _NO_CURVES,
    confidence: Mapping[CellKey, Confidences] = _NO_CONFIDENCES,
    pictures: Path | None = None,
) -> None:
    """Writes the TensorBoard folder of a run.

    Event files of earlier calls are replaced; all other files in the folder stay.

    Args:
        record: the run's record.
        folder: where to write.
        whole: error curves that are known at every epsilon.
        confidence: histograms of confidence.
        pictures: the run's folder, which may hold galleries.
    """
    runs = _runs(record, whole, confidence)
    if pictures is not None:
        _add_galleries(runs, record, pictures)
    cells = cell_runs(record, _wall_time(record))
    beside = folder.with_name(CELLS_FOLDER)
    if len(runs) + len(cells) <= _SHOWN_AT_ONCE:
        runs |= cells
        cells = {}
    _write(runs, folder)
    if cells or beside.exists():
        _write(cells, beside)


def _write(runs: Mapping[str, EventRun], folder: Path) -> None:
    new = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, run in runs.items():
        run.write(new / name / EVENTS_FILE)
    _swap(new, folder, names=runs.keys())


def step_unit(epsilons: Sequence[Epsilon]) -> StepUnit:
    """Returns the coarsest unit in which no two epsilons have the same step.

    >>> step_unit([Epsilon.parse("0.25"), Epsilon.parse("8/255")]).words
    'thousandths'
    >>> step_unit([Epsilon.parse("0.2501"), Epsilon.parse("0.2502")]).words
    'millionths'
    """
    distinct = set(epsilons) | {Epsilon.parse("0")}
    for unit in STEP_UNITS:
        if len({unit.step(epsilon) for epsilon in distinct}) == len(distinct):
            return unit
    return STEP_UNITS[-1]


def _runs(
    record: RunRecord, whole: WholeCurves, confidence: Mapping[CellKey, Confidences]
) -> dict[str, EventRun]:
    results = RunLookup(record)
    wall_time = _wall_time(record)
    unit = _unit(results)
    runs: dict[str, EventRun] = {}
    for experiment in results.experiments:
        for model in experiment.models:
            run = runs[f"{experiment.dataset.name}/{model.name}"] = EventRun(wall_time)
            _add_scalars(run, results, experiment, model.name, unit)
            _add_confidences(run, results, experiment, model.name, unit, confidence)
            for attack in experiment.attacks:
                curve = whole.get((experiment.dataset.name, model.name, attack.label))
                if curve is not None:
                    _add_curve(run, curve, attack.label, unit)
        figures = runs[f"{experiment.dataset.name}/{FIGURES_RUN}"] = EventRun(wall_time)
        for condition in results.transfer_conditions(experiment):
            for matrix in MATRICES:
                figures.image(
                    f"transfer_{condition.attack}/{matrix.name}",
                    transfer_png(results, experiment, condition, matrix),
                    step=unit.step(condition.epsilon),
                    description=_step_text(unit),
                )
    tables = runs[TABLES_RUN] = EventRun(wall_time)
    for number, chapter in enumerate(chapters(record), start=1):
        tables.text(f"{number}. {chapter.title}", "\n\n".join(chapter_markdown(chapter, level=1)))
    tables.layout(scalar_layout(record, whole))
    curves = error_curves_png(record, whole=whole)
    if curves is not None:
        runs[FIGURES_RUN] = EventRun(wall_time)
        runs[FIGURES_RUN].image("error against epsilon", curves, step=0, description="")
    return {name: run for name, run in runs.items() if run.values}


def _add_scalars(
    run: EventRun, results: RunLookup, experiment: Experiment, model: str, unit: StepUnit
) -> None:
    for attack in experiment.attacks:
        conditions = results.attack_conditions(experiment, attack)
        for scalars in _SCALARS:
            description = f"{scalars.title}. {_step_text(unit)}"
            for step, value in _points(results, model, conditions, scalars, unit):
                run.scalar(
                    f"{scalars.tag}/{attack.label}", value, step=step, description=description
                )


def _add_confidences(
    run: EventRun,
    results: RunLookup,
    experiment: Experiment,
    model: str,
    unit: StepUnit,
    confidence: Mapping[CellKey, Confidences],
) -> None:
    dataset = experiment.dataset.name
    unattacked = results.clean(dataset, model)
    for attack in experiment.attacks:
        conditions = results.attack_conditions(experiment, attack)
        for row in [
            unattacked,
            *(results.evaluation(condition, model) for condition in conditions),
        ]:
            found = confidence.get(cell_key(row)) if row else None
            if row is None or found is None:
                continue
            step = 0 if row.unattacked else unit.step(row.epsilon)
            for answers, of in (("right", found.right), ("wrong", found.wrong)):
                if of.examples:
                    run.histogram(
                        f"confidence_{answers}/{attack.label}",
                        of.counts,
                        step=step,
                        description=f"Confidence of the {answers} answers. {_step_text(unit)}",
                    )


def _add_galleries(runs: Mapping[str, EventRun], record: RunRecord, folder: Path) -> None:
    results = RunLookup(record)
    unit = _unit(results)
    classes = {name: card.classes for name, card in record.dataset_cards.items()}
    for _, model, condition, gallery in galleries(results, folder):
        run = runs.get(f"{condition.dataset}/{model}")
        if run is not None:
            run.image(
                f"gallery/{condition.attack}",
                gallery_sheet(gallery, classes.get(condition.dataset, ())),
                step=unit.step(condition.epsilon),
                description=f"Clean, the change scaled to its largest size, adversarial. "
                f"{_step_text(unit)}",
            )


def _unit(results: RunLookup) -> StepUnit:
    return step_unit(
        [
            condition.epsilon
            for each in results.experiments
            for condition in results.conditions(each)
        ]
    )


def _add_curve(run: EventRun, curve: Curve, attack: str, unit: StepUnit) -> None:
    """Adds the error at the steps where it rises, or at some of them if there are many."""
    rises = np.unique(np.ceil(curve.epsilons.astype(np.float64) * unit.a_unit).astype(np.int64))
    every = -(-len(rises) // _MOST_POINTS) or 1
    description = f"{_WHOLE_TITLE}. {_step_text(unit)}"
    for step in sorted({0, *rises[::every].tolist(), *rises[-1:].tolist()}):
        error = curve.at(step / unit.a_unit)
        run.scalar(f"{_WHOLE}/{attack}", error, step=step, description=description)


def _points(
    results: RunLookup, model: str, conditions: list[Condition], scalars: _Scalars, unit: StepUnit
) -> Iterator[tuple[int, float]]:
    points = [
        (unit.step(condition.epsilon), results.evaluation(condition, model))
        for condition in conditions
    ]
    if conditions[0].epsilon.value > 0:
        points.insert(0, (0, results.clean(conditions[0].dataset, model)))
    for step, found in points:
        if found is not None and found.status == "done":
            field = scalars.unattacked if found.unattacked else scalars.attacked
            value = getattr(found, field) if field else None
            if value is not None:
                yield step, value


def _step_text(unit: StepUnit) -> str:
    return (
        f"Step: ε in {unit.words} of the input's unit; 0 is unattacked. "
        "Set smoothing to 0: these are measurements, not noise."
    )


def _wall_time(record: RunRecord) -> float:
    try:
        return datetime.fromisoformat(record.provenance.started).timestamp()
    except ValueError:
        return 0.0


def _swap(new: Path, folder: Path, *, names: Collection[str]) -> None:
    for stale in sorted(folder.rglob(EVENTS_FILE)):
        if stale.parent.relative_to(folder).as_posix() not in names:
            stale.unlink()
            _remove_empty(stale.parent, within=folder)
    for name in names:
        target = folder / name / EVENTS_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        (new / name / EVENTS_FILE).replace(target)
    shutil.rmtree(new)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _remove_empty(folder: Path, *, within: Path) -> None:
    while folder != within and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
