"""The TensorBoard folder of a run: curves, histograms, heat maps, cells and tables.

Each model is one TensorBoard run, ``<dataset>/<model>``, and a measure has the same tag in all of
them, such as ``adversarial_error/fgsm``, so that the curves of several models share one chart.  The
step is epsilon, as a whole number of thousandths of the input's unit; 0 is the unattacked model.
``no_class/<measure>`` are the measures of inputs without a class, at step 0 or by class.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from gibbon.core.threat import Epsilon
from gibbon.metrics.nearest import Curve
from gibbon.records.flags import kinds_of
from gibbon.records.run import Evaluation, RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.chart_data.confidence import CellKey, Confidences, cell_key
from gibbon.report.content.chart_data.distance_curves import NO_CURVES, WholeCurves
from gibbon.report.content.chart_data.gallery import galleries, gallery_sheet
from gibbon.report.content.parts.flag_groups import MARK
from gibbon.report.content.parts.lookup import Condition, RunLookup
from gibbon.report.content.summary.opening import opening
from gibbon.report.content.tables.transfer import matrices
from gibbon.report.figures.plots import error_curves_png, transfer_png
from gibbon.report.file_names import CELLS_FOLDER, EVENTS_FILE
from gibbon.report.tensorboard.custom_scalars import INTERVAL, scalar_layout
from gibbon.report.tensorboard.event_file import EventRun
from gibbon.report.tensorboard.hparams import cell_runs
from gibbon.report.text.markdown import chapter_markdown, opening_markdown
from gibbon.specs.suite import AttackSpec, Experiment

# No model or dataset has such a name: their names begin with a letter or a digit.
FIGURES_RUN: Final = "_figures"
TABLES_RUN: Final = "_tables"

# TensorBoard's dashboards show none of more runs than these until they are selected.
_SHOWN_AT_ONCE = 40

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


# The measures that are drawn against epsilon: fields of an evaluation, and their titles.
_SCALARS: Final = {
    "adversarial_error": "Share of all examples misclassified under attack",
    "worst_case_error": "Share of all examples misclassified clean or by any candidate tried",
    "attack_success_rate": (
        "Share misclassified under attack of the examples classified correctly when clean"
    ),
    "confidence_on_misclassified": "Mean confidence over the misclassified examples",
    "mean_confidence": "Mean confidence over all examples",
    "adversarial_error_low": "The lower end of the Wilson 95 % interval of the adversarial error",
    "adversarial_error_high": "The upper end of the Wilson 95 % interval of the adversarial error",
}
# The measures of inputs without a class, and their titles.
_NO_CLASS: Final = {
    "false_positive_rate": "Share of inputs without a class that the model takes for one",
    "confidence_on_false_positives": "Mean confidence over these false positives",
    "mean_confidence": "Mean confidence over all inputs without a class",
    "auroc": "Area under the ROC curve of confidence, inputs with a class against those without",
    "false_positive_rate_at_95_tpr": (
        "Share of inputs without a class that are at least as sure as 95 % of those with one"
    ),
    "fooling_rate": "Mean over the classes of the share of fooling images taken for the class",
}
_NO_CLASS_STEP: Final = "Step: always 0."
_SHARES: Final = "Share of a class among the false positives. Step: the class's number."
_FOOLING: Final = "Share of fooling images taken for the wanted class. Step: the class's number."
# The fields that hold the value without an attack, if it is another; None if it has no value.
_CLEAN: Final = {
    "adversarial_error": "clean_error",
    "worst_case_error": "clean_error",
    "attack_success_rate": None,
    "adversarial_error_low": "clean_error_low",
    "adversarial_error_high": "clean_error_high",
}
# The tags that are not the name of their field.
_TAGS: Final = {
    "adversarial_error_low": f"{INTERVAL}_low",
    "adversarial_error_high": f"{INTERVAL}_high",
}


def write_tensorboard(
    record: RunRecord,
    folder: Path,
    *,
    whole: WholeCurves = NO_CURVES,
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
    made = _Runs(record)
    made.add_models(whole, confidence)
    made.add_no_class()
    made.add_transfer()
    made.add_tables(whole)
    if pictures is not None:
        made.add_galleries(pictures)
    runs, cells = made.by_name, cell_runs(record, made.wall_time)
    beside = folder.with_name(CELLS_FOLDER)
    if len(runs) + len(cells) <= _SHOWN_AT_ONCE:
        runs |= cells
        cells = {}
    _write(runs, folder)
    if cells or beside.exists():
        _write(cells, beside)


def _write(runs: Mapping[str, EventRun], folder: Path) -> None:
    new = folder.with_name(f".{folder.name}.tmp")
    if new.is_symlink():  # it is removed, and not followed
        new.unlink()
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, run in runs.items():
        run.write(new / name / EVENTS_FILE)
    for stale in sorted(folder.rglob(EVENTS_FILE)):
        if stale.parent.relative_to(folder).as_posix() not in runs:
            stale.unlink()
            _remove_empty(stale.parent, within=folder)
    for name in runs:
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


class _Runs:
    """The TensorBoard runs of a record by name, each made for its first value."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.results = record, RunLookup(record)
        self.wall_time = _wall_time(record)
        self.unit = step_unit(
            [
                condition.epsilon
                for each in self.results.experiments
                for condition in self.results.conditions(each)
            ]
        )
        self.step_text = (
            f"Step: ε in {self.unit.words} of the input's unit; 0 is unattacked. "
            "Set smoothing to 0: these are measurements, not noise."
        )
        self.by_name: dict[str, EventRun] = {}

    def named(self, *parts: str) -> EventRun:
        return self.by_name.setdefault("/".join(parts), EventRun(self.wall_time))

    def add_models(self, whole: WholeCurves, confidence: Mapping[CellKey, Confidences]) -> None:
        for experiment in self.results.experiments:
            dataset = experiment.dataset.name
            for model in experiment.models:
                for attack in experiment.attacks:
                    rows = self._rows(experiment, model.name, attack)
                    self._add_scalars(attack, rows)
                    self._add_confidences(attack, rows, confidence)
                    curve = whole.get((dataset, model.name, attack.label))
                    if curve is not None:
                        self._add_curve(self.named(dataset, model.name), curve, attack.label)

    def _rows(
        self, experiment: Experiment, model: str, attack: AttackSpec
    ) -> list[tuple[int, Evaluation]]:
        """Returns the finished evaluations of an attack with their steps, the clean one first."""
        conditions = [
            Condition.unattacked(experiment.dataset.name),
            *self.results.attack_conditions(experiment, attack),
        ]
        return [
            (self.unit.step(condition.epsilon), row)
            for condition in conditions
            if (row := self.results.evaluation(condition, model)) and row.status == "done"
        ]

    def _add_scalars(self, attack: AttackSpec, rows: list[tuple[int, Evaluation]]) -> None:
        measured_at_zero = min(attack.epsilon).value == 0
        flagged = self._flagged(rows)
        for field, title in _SCALARS.items():
            tag = f"{_TAGS.get(field, field)}/{attack.label}"
            for step, row in rows:
                if row.unattacked and measured_at_zero:
                    continue
                shown = _CLEAN.get(field, field) if row.unattacked else field
                value = getattr(row, shown) if shown else None
                if value is not None:
                    self.named(row.dataset, row.model).scalar(
                        tag, value, step=step, description=f"{title}. {self.step_text}{flagged}"
                    )

    def _flagged(self, rows: list[tuple[int, Evaluation]]) -> str:
        """Returns a sentence about the serious flags that affect points of a curve."""
        found = (
            flag
            for _, row in rows
            if not row.unattacked
            for flag in self.results.flags(row)
            if flag.severity == "serious"
        )
        kinds = kinds_of(found)
        return f" {MARK} Serious flags: {', '.join(kinds)}; see Text." if kinds else ""

    def _add_confidences(
        self,
        attack: AttackSpec,
        rows: list[tuple[int, Evaluation]],
        confidence: Mapping[CellKey, Confidences],
    ) -> None:
        known = [
            (step, row, confidence[cell_key(row)])
            for step, row in rows
            if cell_key(row) in confidence
        ]
        for step, row, found in known:
            for answers, of in (("right", found.right), ("wrong", found.wrong)):
                if of.examples:
                    self.named(row.dataset, row.model).histogram(
                        f"confidence_{answers}/{attack.label}",
                        of.counts,
                        step=step,
                        description=f"Confidence of the {answers} answers. {self.step_text}",
                    )

    def _add_curve(self, run: EventRun, curve: Curve, attack: str) -> None:
        """Adds the error at the steps where it rises, or at some of them if there are many."""
        steps = np.ceil(curve.epsilons.astype(np.float64) * self.unit.a_unit)
        rises = np.unique(steps.astype(np.int64))
        every = -(-len(rises) // _MOST_POINTS) or 1
        description = f"{_WHOLE_TITLE}. {self.step_text}"
        for step in sorted({0, *rises[::every].tolist(), *rises[-1:].tolist()}):
            error = curve.at(step / self.unit.a_unit)
            run.scalar(f"{_WHOLE}/{attack}", error, step=step, description=description)

    def add_no_class(self) -> None:
        """Adds the measures of inputs without a class, at step 0 and by class."""
        for row in self.record.no_class:
            for field, title in _NO_CLASS.items():
                value = getattr(row, field)
                if value is not None:
                    self.named(row.dataset, row.model).scalar(
                        f"no_class/{field}", value, step=0, description=f"{title}. {_NO_CLASS_STEP}"
                    )
        for share in self.record.no_class_shares:
            if share.share is not None:
                self.named(share.dataset, share.model).scalar(
                    "no_class/share_of_class", share.share, step=share.index, description=_SHARES
                )
        for rate in self.record.fooling:
            if rate.fooling_rate is not None:
                self.named(rate.dataset, rate.model).scalar(
                    "no_class/fooling_rate_of_class",
                    rate.fooling_rate,
                    step=rate.index,
                    description=_FOOLING,
                )

    def add_transfer(self) -> None:
        for experiment in self.results.experiments:
            for condition in self.results.transfer_conditions(experiment):
                for matrix in matrices(self.results, experiment, condition):
                    self.named(condition.dataset, FIGURES_RUN).image(
                        f"transfer_{condition.attack}/{matrix.kind.name}",
                        transfer_png(matrix),
                        step=self.unit.step(condition.epsilon),
                        description=self.step_text,
                    )

    def add_tables(self, whole: WholeCurves) -> None:
        tables = self.named(TABLES_RUN)
        tables.text("0. Flags and checks", opening_markdown(opening(self.record)))
        for number, chapter in enumerate(chapters(self.record), start=1):
            text = "\n\n".join(chapter_markdown(chapter, level=1))
            tables.text(f"{number}. {chapter.title}", text)
        tables.layout(scalar_layout(self.record, whole))
        curves = error_curves_png(self.record, whole=whole)
        if curves is not None:
            self.named(FIGURES_RUN).image("error against epsilon", curves, step=0)

    def add_galleries(self, folder: Path) -> None:
        classes = {name: card.classes for name, card in self.record.dataset_cards.items()}
        text = f"Clean, the change scaled to its largest size, adversarial. {self.step_text}"
        for each in galleries(self.results, folder):
            if each.gallery is not None:
                condition = each.condition
                self.named(condition.dataset, each.model).image(
                    f"gallery/{condition.attack}",
                    gallery_sheet(each.gallery, classes.get(condition.dataset, ())),
                    step=self.unit.step(condition.epsilon),
                    description=text,
                )


def _wall_time(record: RunRecord) -> float:
    try:
        return datetime.fromisoformat(record.provenance.started).timestamp()
    except ValueError:
        return 0.0
