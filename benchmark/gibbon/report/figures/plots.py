"""Figures of a run: error against epsilon, and transfer heat maps.

The figures are made without pyplot: no window, no global state and no leak of open figures.
Colours are those of M. Okabe and K. Ito, "Color universal design" (2008), which colour-blind people
can distinguish; markers and line styles repeat the distinction for print in grey.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gibbon.core.errors import RecordError
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.curves import Panel, panels
from gibbon.report.content.chart_data.distance_curves import NO_CURVES, WholeCurves
from gibbon.report.content.chart_data.heat_map import colours
from gibbon.report.content.parts.number_format import percent, rate_alone
from gibbon.report.content.tables.transfer import Matrix

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


def curve_digest(record: RunRecord) -> str:
    """Returns the digest of the data of a run's error curves, which their files contain."""
    return panels_digest(panels(record))


def panels_digest(drawn: tuple[Panel, ...]) -> str:
    """Returns the digest of the data of `error_curves`."""
    return hashlib.sha256(repr(drawn).encode()).hexdigest()


def error_curves(drawn: tuple[Panel, ...]) -> Figure:
    """Returns adversarial error against epsilon, with one plot for each panel."""
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


def transfer_heat_map(matrix: Matrix) -> Figure:
    """Returns one transfer matrix of one attack at one epsilon."""
    side = 2.1 + 0.6 * len(matrix.models)
    figure = Figure(figsize=(side, side), layout="constrained")
    _draw_matrix(figure.subplots(), matrix)
    condition, title = matrix.condition, matrix.kind.title
    where = f"{condition.attack}, ε = {condition.epsilon}, {condition.dataset}"
    figure.suptitle(f"{title}\n{where}", fontsize=10)
    numbers = ", ".join(
        f"{source} to {target} {rate_alone(each).text}"
        for (source, target), each in matrix.rates.items()
    )
    figure.set_label(f"{title}, {where}, source to target: {numbers}")
    return figure


def transfer_png(matrix: Matrix) -> bytes:
    """Returns `transfer_heat_map` as PNG."""
    with house_style():
        return rendered(transfer_heat_map(matrix), ".png", "")


def error_curves_png(record: RunRecord, *, whole: WholeCurves = NO_CURVES) -> bytes | None:
    """Returns `error_curves` as PNG, or None if there is no curve."""
    drawn = panels(record, whole=whole)
    if not drawn:
        return None
    with house_style():
        return rendered(error_curves(drawn), ".png", curve_digest(record))


@contextmanager
def house_style() -> Iterator[None]:
    """Context in which matplotlib ignores the user's settings."""
    # A matplotlibrc of the user must not change the picture, nor a random salt its bytes; both are
    # settings of the whole process, which are restored afterwards.  Names and credits are text:
    # dollar signs in them do not mark a formula.
    house = {"svg.hashsalt": "gibbon", "text.parse_math": False}
    with matplotlib.style.context(["default", house]):
        yield


def rendered(figure: Figure, suffix: str, digest: str) -> bytes:
    """Returns a figure as ``.svg`` or ``.png``.

    The figure's label becomes the file's title, which screen readers read; ``digest``, of the data
    that the figure shows, becomes its description.

    Raises `RecordError` for another suffix.
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


def _draw_panel(axis: Axes, panel: Panel, names: list[str]) -> None:
    for name in panel.curves:
        _draw_curve(axis, panel, name, names.index(name))
    axis.set_title(f"{panel.attack} on {panel.dataset}", fontsize=10)
    axis.set_ylabel("error, %")
    axis.set_xlabel("ε (units of the input)")
    axis.set_ylim(-3, 103)
    axis.grid(visible=True, color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_curve(axis: Axes, panel: Panel, name: str, place: int) -> None:
    """Draws the points of a curve with their intervals, and a curve that is known everywhere."""
    points, whole, end = panel.curves[name], panel.whole.get(name), panel.end
    colour, line = COLOURS[place % len(COLOURS)], _LINES[place % len(_LINES)]
    marker: dict[str, Any] = {
        "marker": _MARKERS[place % len(_MARKERS)],
        "markersize": 4.5,
        "color": colour,
    }
    at = [point.epsilon for point in points]
    rates = [_percentage(point.measured.rate) for point in points]
    low = [_percentage(point.measured.low) for point in points]
    high = [_percentage(point.measured.high) for point in points]
    if whole is None:
        axis.plot(at, rates, linestyle=line, linewidth=1.5, label=name, **marker)
        axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        return
    steps = [0.0, *whole.epsilons[whole.epsilons < end].tolist(), end]
    errors = [100 * whole.at(epsilon) for epsilon in steps]
    axis.step(steps, errors, where="post", color=colour, linestyle=line, linewidth=1.5)
    axis.plot(at, rates, linestyle="", **marker)
    axis.vlines(at, low, high, color=colour, alpha=0.5, linewidth=1.5)
    axis.plot([], [], linestyle=line, label=name, **marker)  # for the legend


def _panel_words(panel: Panel) -> str:
    ends = "; ".join(
        f"{name} {percent(points[0].measured.rate)} at {points[0].epsilon:g}"
        f" and {percent(points[-1].measured.rate)} at {points[-1].epsilon:g}"
        for name, points in panel.curves.items()
        if points
    )
    return f"{panel.attack} on {panel.dataset}: {ends}."


def _draw_matrix(axis: Axes, matrix: Matrix) -> None:
    names = matrix.models
    rates = [_percentage(each.rate) for each in matrix.rates.values()]
    values = np.array(rates).reshape(len(names), len(names))
    scale = colormaps["cividis"].with_extremes(bad="#e8e8e8")
    axis.imshow(np.ma.masked_invalid(values), cmap=scale, vmin=0, vmax=100)
    for row, source in enumerate(names):
        for column, target in enumerate(names):
            each = matrix.rates[source, target]
            axis.text(
                column,
                row,
                rate_alone(each).text,
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


def _percentage(rate: float | None) -> float:
    return float("nan") if rate is None else 100 * rate
