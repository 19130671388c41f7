"""Figures of a run: error against epsilon, and transfer heat maps.

The figures are made without pyplot, so no window, no global state and no leak of open figures.
Colours are those of M. Okabe and K. Ito, "Color universal design" (2008), which colour-blind people
tell apart; markers and line styles say the same once more, for print in grey.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gibbon.core.errors import RecordError
from gibbon.core.files import write_atomically
from gibbon.metrics.nearest import Curve
from gibbon.records.run import RunRecord
from gibbon.report.content.curves import Panel, Point, by_model, panels
from gibbon.report.content.distance_curves import WholeCurves
from gibbon.report.content.heat_map import colours
from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING
from gibbon.report.content.lookup import Cut, Measured, Results
from gibbon.report.content.number_format import percent
from gibbon.report.content.transfer import Matrix, transferred
from gibbon.specs.suite import Experiment

COLOURS: Final = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
_MARKERS: Final = "os^DvPX"
_LINES: Final = ("-", "--", "-.", ":")
_PANELS_A_ROW = 2
_DOTS_PER_INCH = 110
_NONE: Final[WholeCurves] = {}


def curve_digest(record: RunRecord) -> str:
    """Returns a digest of all that the error curves show; the files carry it."""
    return _digest(panels(record))


def model_curve_digest(record: RunRecord) -> str:
    """Returns `curve_digest` of what `save_model_curves` draws."""
    return _digest(by_model(panels(record)))


def save_error_curves(record: RunRecord, path: Path) -> None:
    """Writes error against epsilon as ``.svg`` or ``.png``; the same record gives the same bytes.

    Raises `RecordError` where no attack was made at two epsilons or more.
    """
    _save(panels(record), record, path)


def save_model_curves(record: RunRecord, path: Path) -> None:
    """Writes error against epsilon with a panel for each model and a curve for each attack.

    Raises as `save_error_curves` does.
    """
    _save(by_model(panels(record)), record, path)


def error_curves(drawn: tuple[Panel, ...]) -> Figure:
    """Returns adversarial error against epsilon, a panel per dataset and attack, or model."""
    columns = min(len(drawn), _PANELS_A_ROW)
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    names = list(dict.fromkeys(name for panel in drawn for name in panel.curves))
    for panel, axis in zip(drawn, axes, strict=False):
        _draw_panel(axis, panel, names)
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside upper center",
        ncols=min(len(names), 5),
        frameon=False,
    )
    figure.set_label("Error against ε. " + " ".join(map(_panel_words, drawn)))
    return figure


def transfer_heat_map(results: Results, experiment: Experiment, cut: Cut, matrix: Matrix) -> Figure:
    """Returns one transfer matrix of one attack at one epsilon."""
    names = [model.name for model in experiment.models]
    side = 2.1 + 0.6 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    _draw_matrix(figure.subplots(), results, cut, names, matrix)
    where = f"{cut.attack}, ε = {cut.epsilon}, {cut.dataset}"
    figure.suptitle(f"{matrix.title}\n{where}", fontsize=10)
    numbers = ", ".join(
        f"{source} to {target} {_in_cell(transferred(results, cut, source, target, matrix))}"
        for source in names
        for target in names
    )
    figure.set_label(f"{matrix.title}, {where}, source to target: {numbers}")
    return figure


def transfer_png(results: Results, experiment: Experiment, cut: Cut, matrix: Matrix) -> bytes:
    """Returns `transfer_heat_map` as PNG."""
    with house_style():
        return rendered(transfer_heat_map(results, experiment, cut, matrix), ".png", "")


def error_curves_png(record: RunRecord, *, whole: WholeCurves = _NONE) -> bytes | None:
    """Returns `error_curves` as PNG, or None where there is no curve to draw."""
    drawn = panels(record, whole=whole)
    if not drawn:
        return None
    with house_style():
        return rendered(error_curves(drawn), ".png", curve_digest(record))


@contextmanager
def house_style() -> Iterator[None]:
    """While inside, matplotlib draws as it does here, whatever the user has set."""
    # A matplotlibrc of the user must not change the picture, nor a random salt its bytes; both are
    # settings of the whole process for which matplotlib has no other door, so they are put back.
    # A name or a credit is text: what stands between two dollar signs in it is no formula.
    house = {"svg.hashsalt": "gibbon", "text.parse_math": False}
    with matplotlib.style.context(["default", house]):
        yield


def rendered(figure: Figure, suffix: str, digest: str) -> bytes:
    """Returns a figure as ``.svg`` or ``.png``, with its label as title and a digest.

    The title is what a screen reader says of an SVG; the digest is of what the figure shows.

    Raises `RecordError` where it is to be something else.
    """
    # No date and no version in the file: the same numbers must give the same bytes.
    title = str(figure.get_label())
    metadata: dict[str, dict[str, str | None]] = {
        ".svg": {"Date": None, "Creator": None, "Title": title, "Description": digest},
        ".png": {"Software": None, "Title": title, "Description": digest},
    }
    if suffix not in metadata:
        raise RecordError(f"a picture is .svg or .png, got {suffix!r}")
    stream = io.BytesIO()
    figure.savefig(
        stream,
        format=suffix.removeprefix("."),
        dpi=_DOTS_PER_INCH,
        metadata=metadata[suffix],
    )
    return stream.getvalue()


def _digest(drawn: tuple[Panel, ...]) -> str:
    return hashlib.sha256(repr(drawn).encode()).hexdigest()


def _save(drawn: tuple[Panel, ...], record: RunRecord, path: Path) -> None:
    if not drawn:
        raise RecordError(
            f"{record.suite.name}: no attack of this run has two epsilons or more: there is no "
            "curve to draw"
        )
    with house_style():
        write_atomically(path, rendered(error_curves(drawn), path.suffix, _digest(drawn)))


def _draw_panel(axis: Axes, panel: Panel, names: list[str]) -> None:
    end = panel.end
    for name, points in panel.curves.items():
        place = names.index(name)
        colour = COLOURS[place % len(COLOURS)]
        if name in panel.whole:
            _draw_steps(axis, panel.whole[name], points, name, place=place, end=end)
            continue
        at = [point.epsilon for point in points]
        axis.plot(
            at,
            [_percentage(point.measured.rate) for point in points],
            color=colour,
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle=_LINES[place % len(_LINES)],
            markersize=4.5,
            linewidth=1.5,
            label=name,
        )
        axis.fill_between(
            at,
            [_percentage(point.measured.low) for point in points],
            [_percentage(point.measured.high) for point in points],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axis.set_title(f"{panel.attack} on {panel.dataset}", fontsize=10)
    axis.set_ylabel("error, %")
    axis.set_xlabel("ε (units of the input)")
    axis.set_ylim(-3, 103)
    axis.grid(visible=True, color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _panel_words(panel: Panel) -> str:
    ends = "; ".join(
        f"{name} {percent(points[0].measured.rate)} at {points[0].epsilon:g}"
        f" and {percent(points[-1].measured.rate)} at {points[-1].epsilon:g}"
        for name, points in panel.curves.items()
        if points
    )
    return f"{panel.attack} on {panel.dataset}: {ends}."


def _draw_steps(
    axis: Axes, curve: Curve, points: tuple[Point, ...], name: str, *, place: int, end: float
) -> None:
    """Draws a curve that is known at every epsilon, and marks where it was asked of."""
    colour, line = COLOURS[place % len(COLOURS)], _LINES[place % len(_LINES)]
    shown = curve.epsilons[curve.epsilons < end].tolist()
    at = [0.0, *shown, end]
    rates = [100 * curve.at(epsilon) for epsilon in at]
    axis.step(at, rates, where="post", color=colour, linestyle=line, linewidth=1.5)
    asked = [point.epsilon for point in points]
    marked = [_percentage(point.measured.rate) for point in points]
    marker = _MARKERS[place % len(_MARKERS)]
    axis.plot(asked, marked, color=colour, marker=marker, linestyle="", markersize=4.5)
    axis.vlines(
        asked,
        [_percentage(point.measured.low) for point in points],
        [_percentage(point.measured.high) for point in points],
        color=colour,
        alpha=0.5,
        linewidth=1.5,
    )
    axis.plot([], [], color=colour, marker=marker, linestyle=line, markersize=4.5, label=name)


def _draw_matrix(axis: Axes, results: Results, cut: Cut, names: list[str], matrix: Matrix) -> None:
    found = [
        [transferred(results, cut, source, target, matrix) for target in names] for source in names
    ]
    values = np.array([[_percentage(each.rate) for each in row] for row in found])
    scale = colormaps["cividis"].with_extremes(bad="#e8e8e8")
    axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=0, vmax=100)
    for row, each_row in enumerate(found):
        for column, each in enumerate(each_row):
            axis.text(
                column,
                row,
                _in_cell(each),
                ha="center",
                va="center",
                fontsize=8.5,
                color="black" if each.rate is None else colours(each.rate)[1],
            )
        axis.add_patch(
            Rectangle((row - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.6)
        )
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("target")
    axis.set_ylabel("source")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _in_cell(measured: Measured) -> str:
    if measured.state != "done":
        return FAILED if measured.state == "failed" else NOT_RUN
    return NOTHING if measured.rate is None else percent(measured.rate)


def _percentage(rate: float | None) -> float:
    return float("nan") if rate is None else 100 * rate
