"""The TensorBoard folder of a run: curves, heat maps and tables.

Each model is one TensorBoard run, ``<dataset>/<model>``, and a measure has the same tag in all of
them, such as ``adversarial_error/fgsm``: the curves of several models overlay in one chart.  The
step is epsilon, as a whole number of thousandths of the input's unit; 0 is the unattacked model.
``error_within/<attack>`` is the whole curve of an attack that looks for the nearest example.
Figures are in the runs ``_figures`` and ``<dataset>/_figures``, tables in the run ``_tables``.

The events are written with the protocol buffers of the tensorboard package: no torch, and unlike
with its own writer no thread, no host name and no time of writing in the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from benchmark.metrics.nearest import Curve
from benchmark.records import Evaluation, RunRecord
from benchmark.report.figures import error_curves_png, transfer_png
from benchmark.report.markdown import chapter_markdown
from benchmark.report.results import Cut, Results
from benchmark.report.tables import MATRICES, chapters
from benchmark.report.whole_curves import WholeCurves
from benchmark.specs import Experiment
from benchmark.threat import Epsilon

FOLDER: Final = "tensorboard"
# TensorBoard reads files with "tfevents" in their name; by the rest of it we know our own.
EVENTS_FILE: Final = "events.out.tfevents.gibbon"
# No model or dataset can be called so: their names begin with a letter or a digit.
FIGURES_RUN: Final = "_figures"
TABLES_RUN: Final = "_tables"

_NONE: Final[WholeCurves] = {}
_WHOLE = "error_within"
_WHOLE_TITLE = "Share of all examples with an adversarial example found within ε, from one search"
_MOST_POINTS = 200  # of a whole curve
_FILE_VERSION = "brain.Event:2"
_PNG_SIZE = slice(16, 24)  # width and height in a PNG's header, four bytes each


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


@dataclass
class _Run:
    """The events of one TensorBoard run."""

    wall_time: float
    values: list[tuple[int, Any]] = field(default_factory=list)

    def scalar(self, tag: str, value: float, *, step: int, description: str) -> None:
        self._add(
            tag,
            TensorProto(dtype=DT_FLOAT, float_val=[value], tensor_shape=TensorShapeProto()),
            scalar_metadata.create_summary_metadata("", description),
            step,
        )

    def image(self, tag: str, png: bytes, *, step: int, description: str) -> None:
        header = png[_PNG_SIZE]
        width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
        tensor = _strings(str(width).encode(), str(height).encode(), png)
        metadata = image_metadata.create_summary_metadata("", description)
        self._add(tag, tensor, metadata, step)

    def text(self, tag: str, markdown: str) -> None:
        tensor = _strings(markdown.encode())
        self._add(tag, tensor, text_metadata.create_summary_metadata("", ""), 0)

    def _add(self, tag: str, tensor: Any, metadata: Any, step: int) -> None:
        self.values.append((step, Summary.Value(tag=tag, tensor=tensor, metadata=metadata)))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        with path.open("wb") as stream:
            writer = RecordWriter(stream)
            opening = Event(wall_time=self.wall_time, file_version=_FILE_VERSION)
            writer.write(opening.SerializeToString())
            for step, value in self.values:
                event = Event(wall_time=self.wall_time, step=step, summary=Summary(value=[value]))
                writer.write(event.SerializeToString())


def write_tensorboard(record: RunRecord, folder: Path, *, whole: WholeCurves = _NONE) -> None:
    """Writes the TensorBoard folder ``folder``, with the whole curves that there are.

    Event files of ours that are there are replaced, all else in the folder is left alone.
    """
    runs = _runs(record, whole)
    new = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
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


def _runs(record: RunRecord, whole: WholeCurves) -> dict[str, _Run]:
    results = Results(record)
    wall_time = _wall_time(record)
    unit = step_unit(
        [
            epsilon
            for experiment in results.experiments
            for attack in experiment.attacks
            for epsilon in attack.epsilon
        ]
    )
    runs: dict[str, _Run] = {}
    for experiment in results.experiments:
        for model in experiment.models:
            run = runs[f"{experiment.dataset.name}/{model.name}"] = _Run(wall_time)
            _add_scalars(run, results, experiment, model.name, unit)
            for attack in experiment.attacks:
                curve = whole.get((experiment.dataset.name, model.name, attack.label))
                if curve is not None:
                    _add_curve(run, curve, attack.label, unit)
        figures = runs[f"{experiment.dataset.name}/{FIGURES_RUN}"] = _Run(wall_time)
        for cut in results.transfer_cuts(experiment):
            for matrix in MATRICES:
                figures.image(
                    f"transfer_{cut.attack}/{matrix.name}",
                    transfer_png(results, experiment, cut, matrix),
                    step=unit.step(cut.epsilon),
                    description=_step_in_words(unit),
                )
    tables = runs[TABLES_RUN] = _Run(wall_time)
    for number, chapter in enumerate(chapters(record), start=1):
        tables.text(f"{number}. {chapter.title}", "\n\n".join(chapter_markdown(chapter, level=1)))
    curves = error_curves_png(record, whole=whole)
    if curves is not None:
        runs[FIGURES_RUN] = _Run(wall_time)
        runs[FIGURES_RUN].image("error against epsilon", curves, step=0, description="")
    return {name: run for name, run in runs.items() if run.values}


def _add_scalars(
    run: _Run, results: Results, experiment: Experiment, model: str, unit: StepUnit
) -> None:
    for attack in experiment.attacks:
        cuts = [Cut(experiment.dataset.name, attack.label, each) for each in sorted(attack.epsilon)]
        for scalars in _SCALARS:
            description = f"{scalars.title}. {_step_in_words(unit)}"
            for step, value in _points(results, model, cuts, scalars, unit):
                run.scalar(
                    f"{scalars.tag}/{attack.label}", value, step=step, description=description
                )


def _add_curve(run: _Run, curve: Curve, attack: str, unit: StepUnit) -> None:
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


def _strings(*values: bytes) -> Any:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=DT_STRING, string_val=values, tensor_shape=shape)


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


def _remove_empty(folder: Path, *, within: Path) -> None:
    while folder != within and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
