"""The TensorBoard folder of a run: curves, histograms, heat maps, cells and tables.

Each model is one TensorBoard run, ``<dataset>/<model>``, and a measure has the same tag in all of
them, such as ``adversarial_error/fgsm``: the curves of several models overlay in one chart.  The
step is epsilon, as a whole number of thousandths of the input's unit; 0 is the unattacked model.
``error_within/<attack>`` is the whole curve of an attack that looks for the nearest example;
``confidence_right`` and ``confidence_wrong`` are histograms, ``gallery`` holds pictures and
``interval`` the ends of the intervals, which the layout of custom scalars draws as bands.  Figures
are in the runs ``_figures`` and ``<dataset>/_figures``, tables in the run ``_tables``.

Each cell with its parameters is a run of its own, below ``_cells``, for the dashboard of
hyperparameters.  Where these are too many to be seen beside the others they have a folder of their
own, `CELLS_FOLDER`: ``tensorboard --logdir RUN/tensorboard_cells``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from gibbon.core.threat import Epsilon
from gibbon.metrics.nearest import Curve
from gibbon.records.run import Evaluation, RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.confidence import Confidences, Key, key
from gibbon.report.content.distance_curves import WholeCurves
from gibbon.report.content.gallery import galleries, gallery_sheet
from gibbon.report.content.lookup import Cut, Results
from gibbon.report.content.transfer import MATRICES
from gibbon.report.figures.plots import error_curves_png, transfer_png
from gibbon.report.tensorboard.custom_scalars import INTERVAL, scalar_layout
from gibbon.report.tensorboard.event_file import EventRun
from gibbon.report.tensorboard.hparams import cell_runs
from gibbon.report.text.markdown import chapter_markdown
from gibbon.specs.suite import Experiment

FOLDER: Final = "tensorboard"

# TensorBoard reads files with "tfevents" in their name; by the rest of it we know our own.
EVENTS_FILE: Final = "events.out.tfevents.gibbon"

# No model or dataset can be called so: their names begin with a letter or a digit.
FIGURES_RUN: Final = "_figures"
TABLES_RUN: Final = "_tables"
CELLS_FOLDER: Final = "tensorboard_cells"

# Of more runs than these TensorBoard's dashboards show none until they are chosen one by one.
_SHOWN_AT_ONCE = 40

_NONE: Final[WholeCurves] = {}
_NOT_KNOWN: Final[Mapping[Key, Confidences]] = {}
_WHOLE = "error_within"
_WHOLE_TITLE = "Share of all examples with an adversarial example found within ε, from one search"
_MOST_POINTS = 200  # of a whole curve


@dataclass(frozen=True)
class StepUnit:
    """What one step of TensorBoard is: steps are whole numbers, epsilons are not."""

    a_unit: int
    words: str

    def step(self, epsilon: Epsilon) -> int:
        """Returns the step that stands for an epsilon."""
        return round(epsilon.value * self.a_unit)


STEP_UNITS: Final = (
    StepUnit(1_000, "thousandths"),
    StepUnit(1_000_000, "millionths"),
    StepUnit(1_000_000_000, "thousand-millionths"),
)


@dataclass(frozen=True)
class _Scalars:
    """A measure that is drawn against epsilon."""

    tag: str
    title: str
    attacked: Callable[[Evaluation], float | None]
    unattacked: Callable[[Evaluation], float | None]


_SCALARS: Final = (
    _Scalars(
        "adversarial_error",
        "Share of all examples misclassified under attack",
        lambda each: each.adversarial_error,
        lambda each: each.clean_error,
    ),
    _Scalars(
        "worst_case_error",
        "Share of all examples misclassified clean or by any candidate tried",
        lambda each: each.worst_case_error,
        lambda each: each.clean_error,
    ),
    _Scalars(
        "attack_success_rate",
        "Share misclassified under attack of the examples classified correctly when clean",
        lambda each: each.attack_success_rate,
        lambda each: None,
    ),
    _Scalars(
        "confidence_on_misclassified",
        "Mean confidence over the misclassified examples",
        lambda each: each.confidence_on_misclassified,
        lambda each: each.confidence_on_misclassified,
    ),
    _Scalars(
        "mean_confidence",
        "Mean confidence over all examples",
        lambda each: each.mean_confidence,
        lambda each: each.mean_confidence,
    ),
)

_ENDS: Final = (
    _Scalars(
        f"{INTERVAL}_low",
        "The lower end of the Wilson 95 % interval of the adversarial error",
        lambda each: each.adversarial_error_low,
        lambda each: each.clean_error_low,
    ),
    _Scalars(
        f"{INTERVAL}_high",
        "The upper end of the Wilson 95 % interval of the adversarial error",
        lambda each: each.adversarial_error_high,
        lambda each: each.clean_error_high,
    ),
)


def write_tensorboard(
    record: RunRecord,
    folder: Path,
    *,
    whole: WholeCurves = _NONE,
    sure: Mapping[Key, Confidences] = _NOT_KNOWN,
    pictures: Path | None = None,
) -> None:
    """Writes the TensorBoard folder ``folder``, with the whole curves and the confidences known.

    ``pictures`` is the folder of a run that may hold galleries.

    Event files of ours that are there are replaced, all else in the folder is left alone.
    """
    runs = _runs(record, whole, sure)
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
    record: RunRecord, whole: WholeCurves, sure: Mapping[Key, Confidences]
) -> dict[str, EventRun]:
    results = Results(record)
    wall_time = _wall_time(record)
    unit = _unit(results)
    runs: dict[str, EventRun] = {}
    for experiment in results.experiments:
        for model in experiment.models:
            run = runs[f"{experiment.dataset.name}/{model.name}"] = EventRun(wall_time)
            _add_scalars(run, results, experiment, model.name, unit)
            _add_intervals(run, results, experiment, model.name, unit)
            _add_confidences(run, results, experiment, model.name, unit, sure)
            for attack in experiment.attacks:
                curve = whole.get((experiment.dataset.name, model.name, attack.label))
                if curve is not None:
                    _add_curve(run, curve, attack.label, unit)
        figures = runs[f"{experiment.dataset.name}/{FIGURES_RUN}"] = EventRun(wall_time)
        for cut in results.transfer_cuts(experiment):
            for matrix in MATRICES:
                figures.image(
                    f"transfer_{cut.attack}/{matrix.name}",
                    transfer_png(results, experiment, cut, matrix),
                    step=unit.step(cut.epsilon),
                    description=_step_in_words(unit),
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
    run: EventRun, results: Results, experiment: Experiment, model: str, unit: StepUnit
) -> None:
    for attack in experiment.attacks:
        cuts = [Cut(experiment.dataset.name, attack.label, each) for each in sorted(attack.epsilon)]
        for scalars in _SCALARS:
            description = f"{scalars.title}. {_step_in_words(unit)}"
            for step, value in _points(results, model, cuts, scalars, unit):
                run.scalar(
                    f"{scalars.tag}/{attack.label}", value, step=step, description=description
                )


def _add_intervals(
    run: EventRun, results: Results, experiment: Experiment, model: str, unit: StepUnit
) -> None:
    for attack in experiment.attacks:
        cuts = [Cut(experiment.dataset.name, attack.label, each) for each in sorted(attack.epsilon)]
        for scalars in _ENDS:
            for step, value in _points(results, model, cuts, scalars, unit):
                run.scalar(
                    f"{scalars.tag}/{attack.label}", value, step=step, description=scalars.title
                )


def _add_confidences(
    run: EventRun,
    results: Results,
    experiment: Experiment,
    model: str,
    unit: StepUnit,
    sure: Mapping[Key, Confidences],
) -> None:
    dataset = experiment.dataset.name
    unattacked = results.clean(dataset, model)
    for attack in experiment.attacks:
        rows = [
            results.evaluation(Cut(dataset, attack.label, each), model)
            for each in sorted(attack.epsilon)
        ]
        for row in [unattacked, *rows]:
            found = sure.get(key(dataset, model, row.attack, row.epsilon)) if row else None
            if row is None or found is None:
                continue
            step = 0 if row.unattacked else unit.step(row.epsilon)
            for answers, of in (("right", found.right), ("wrong", found.wrong)):
                if of.examples:
                    run.histogram(
                        f"confidence_{answers}/{attack.label}",
                        of.counts,
                        step=step,
                        description=f"Confidence of the {answers} answers. {_step_in_words(unit)}",
                    )


def _add_galleries(runs: Mapping[str, EventRun], record: RunRecord, folder: Path) -> None:
    results = Results(record)
    unit = _unit(results)
    classes = {name: card.classes for name, card in record.dataset_cards.items()}
    for _, model, cut, gallery in galleries(results, folder):
        run = runs.get(f"{cut.dataset}/{model}")
        if run is not None:
            run.image(
                f"gallery/{cut.attack}",
                gallery_sheet(gallery, classes.get(cut.dataset, ())),
                step=unit.step(cut.epsilon),
                description=f"Clean, the change scaled to its largest size, adversarial. "
                f"{_step_in_words(unit)}",
            )


def _unit(results: Results) -> StepUnit:
    return step_unit(
        [
            epsilon
            for experiment in results.experiments
            for attack in experiment.attacks
            for epsilon in attack.epsilon
        ]
    )


def _add_curve(run: EventRun, curve: Curve, attack: str, unit: StepUnit) -> None:
    """Adds the error at the steps where it has risen, or at some of them where they are many."""
    risen = np.unique(np.ceil(curve.epsilons.astype(np.float64) * unit.a_unit).astype(np.int64))
    every = -(-len(risen) // _MOST_POINTS) or 1
    description = f"{_WHOLE_TITLE}. {_step_in_words(unit)}"
    for step in sorted({0, *risen[::every].tolist(), *risen[-1:].tolist()}):
        error = curve.at(step / unit.a_unit)
        run.scalar(f"{_WHOLE}/{attack}", error, step=step, description=description)


def _points(
    results: Results, model: str, cuts: list[Cut], scalars: _Scalars, unit: StepUnit
) -> Iterator[tuple[int, float]]:
    unattacked = results.clean(cuts[0].dataset, model)
    if unattacked is not None and unattacked.status == "done" and cuts[0].epsilon.value > 0:
        start = scalars.unattacked(unattacked)
        if start is not None:
            yield 0, start
    for cut in cuts:
        found = results.evaluation(cut, model)
        if found is not None and found.status == "done":
            value = scalars.attacked(found)
            if value is not None:
                yield unit.step(cut.epsilon), value


def _step_in_words(unit: StepUnit) -> str:
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
