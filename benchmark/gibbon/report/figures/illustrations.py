"""Draws the illustrations of a run with matplotlib, as SVG and PNG, and describes them in words."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from gibbon.core.threat import Epsilon
from gibbon.records.illustration import (
    Addition,
    Answer,
    Filters,
    Illustration,
    LinearModel,
    Sweep,
    digest_of,
)
from gibbon.report.content.parts.number_format import percent
from gibbon.report.figures.plots import COLOURS, house_style, rendered

_RIGHT, _WRONG = COLOURS[2], COLOURS[1]
_MARGIN: Final = 0.35  # of the width of a digit, between digits of a sheet
_PIXELS: Final = 255.0


@dataclass(frozen=True)
class Drawing:
    """A figure in both formats, with its title and description."""

    name: str
    title: str
    description: str
    svg: bytes
    png: bytes

    @property
    def source(self) -> str:
        """The smaller of both files as a data URL."""
        forms = (("svg+xml", self.svg), ("png", self.png))
        kind, content = min(forms, key=lambda form: len(form[1]))
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def draw(illustration: Illustration) -> Drawing:
    """Draws an illustration in both formats."""
    digest = digest_of(illustration)
    with house_style():
        svg, png = (rendered(figure_of(illustration), each, digest) for each in (".svg", ".png"))
    return Drawing(illustration.kind, illustration.title, describe(illustration), svg, png)


def figure_of(illustration: Illustration) -> Figure:
    """Returns the figure of an illustration, with its title and description as its label."""
    figure = _figure(illustration)
    figure.set_label(f"{illustration.title}. {describe(illustration)}")
    return figure


@singledispatch
def _figure(illustration: object) -> Figure:
    raise TypeError(f"there is no drawing of a {type(illustration).__name__}")


@singledispatch
def describe(illustration: object) -> str:
    """Describes an illustration in words."""
    raise TypeError(f"there are no words for a {type(illustration).__name__}")


@_figure.register
def _(addition: Addition) -> Figure:
    figure = Figure(figsize=(9.6, 4.1), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=(6, 2, 6, 1, 6))
    first, times, middle, equals, last = axes
    _picture(first, addition.picture)
    _picture(middle, _of_signs(addition.direction))
    _picture(last, _sum(addition))
    _below(first, "x", addition.before, addition.truth)
    _below(middle, "sign(∇x J(θ, x, y))", addition.alone, addition.truth)
    _below(last, "x + ε sign(∇x J(θ, x, y))", addition.after, addition.truth)
    for axis, sign in ((times, f"+ {addition.epsilon} ×"), (equals, "=")):
        axis.set_axis_off()
        axis.text(0.5, 0.5, sign, ha="center", va="center", fontsize=15)
    _caption(figure, f"{addition.model}; {addition.source}", size=7.5)
    return figure


@describe.register
def _(addition: Addition) -> str:
    def text(answer: Answer) -> str:
        right = "right" if answer.label == addition.truth else "wrong"
        return f"“{answer.label}” with a confidence of {percent(answer.confidence)} ({right})"

    return (
        f"{addition.model} takes a picture of the class “{addition.truth}” for "
        f"{text(addition.before)}; the sign of the gradient, drawn as a picture, for "
        f"“{addition.alone.label}” with {percent(addition.alone.confidence)}; and their sum, at "
        f"ε = {addition.epsilon}, for {text(addition.after)}."
    )


def _caption(figure: Figure, text: str, *, size: float = 8.5) -> None:
    figure.supxlabel(text, fontsize=size, color="#444444")


def _sum(addition: Addition) -> NDArray[Any]:
    moved = addition.picture / _PIXELS + float(Epsilon.parse(addition.epsilon)) * addition.direction
    return np.clip(moved, 0, 1)


def _of_signs(direction: NDArray[np.int8]) -> NDArray[Any]:
    return (direction.astype(np.float64) + 1) / 2


def _below(axis: Axes, what: str, answer: Answer, truth: str) -> None:
    colour = _RIGHT if answer.label == truth else _WRONG
    axis.set_title(what, fontsize=10)
    axis.set_xlabel(
        f"{answer.label}\n{percent(answer.confidence)} confidence", fontsize=10, color="black"
    )
    axis.spines[:].set_color(colour)
    axis.spines[:].set_linewidth(2.5)


@_figure.register
def _(linear: LinearModel) -> Figure:
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(5, 5, 7, 7))
    size = float(np.abs(linear.weights).max()) or 1.0
    _signed(axes[0], linear.weights, size)
    _signed(axes[1], np.sign(linear.weights), 1.0)
    axes[0].set_title("weights", fontsize=10)
    axes[1].set_title("their sign", fontsize=10)
    clean = linear.clean / _PIXELS
    _digits(axes[2], clean, linear.predicted == linear.label)
    _digits(axes[3], linear.attacked, linear.misled == linear.label)
    axes[2].set_title(f"clean: {percent(linear.clean_error, clean=True)} wrong", fontsize=10)
    axes[3].set_title(
        f"attacked, ε = {linear.epsilon}: {percent(linear.attacked_error)} wrong", fontsize=10
    )
    _caption(
        figure,
        f"{linear.model}; blue speaks for {linear.classes[0]}, red for {linear.classes[1]}; a "
        "frame with a crossed corner: misclassified",
    )
    return figure


@describe.register
def _(linear: LinearModel) -> str:
    one, two = linear.classes
    misled = int(np.count_nonzero(linear.misled != linear.label))
    return (
        f"The weights of {linear.model} between {one} and {two}, the sign of each, and "
        f"{len(linear.label)} examples of both, clean and moved by ε = {linear.epsilon} along that "
        f"sign: of these {misled} are then misclassified. Of all test examples "
        f"{percent(linear.clean_error, clean=True)} are misclassified clean, "
        f"{percent(linear.attacked_error)} attacked."
    )


def _digits(axis: Axes, digits: NDArray[Any], right: NDArray[np.bool_]) -> None:
    """Draws a sheet of digits, with a crossed frame around those that are misclassified."""
    columns = 4
    side = digits.shape[-1]
    pitch = side * (1 + _MARGIN)
    rows = -(-len(digits) // columns)
    for place, (digit, good) in enumerate(zip(digits, right, strict=True)):
        x, y = (place % columns) * pitch, (place // columns) * pitch
        axis.imshow(digit, cmap="gray", vmin=-0.25, vmax=1.25, extent=(x, x + side, y + side, y))
        if not good:
            axis.add_patch(
                Rectangle((x - 2, y - 2), side + 4, side + 4, fill=False, edgecolor=_WRONG, lw=1.6)
            )
            axis.plot([x - 2, x + 6], [y + 6, y - 2], color=_WRONG, lw=1.6)
    axis.set_xlim(-4, columns * pitch - side * _MARGIN + 4)
    axis.set_ylim(rows * pitch - side * _MARGIN + 4, -4)
    axis.set_aspect("equal")
    axis.set_axis_off()


def _signed(axis: Axes, values: NDArray[Any], size: float) -> None:
    axis.imshow(values, cmap="RdBu_r", vmin=-size, vmax=size)
    axis.set_xticks([])
    axis.set_yticks([])


@_figure.register
def _(filters: Filters) -> Figure:
    count = len(filters.models)
    figure = Figure(figsize=(4.7 * count, 5.0), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False).ravel()
    for axis, name, each in zip(axes, filters.models, filters.filters, strict=True):
        axis.imshow(_sheet(each.astype(np.float64)), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
    _caption(figure, "each filter in its own scale: grey is zero, white its largest weight")
    return figure


@describe.register
def _(filters: Filters) -> str:
    each = filters.filters.shape[1]
    rough = ", ".join(
        f"{name} {_roughness(found):.2f}"
        for name, found in zip(filters.models, filters.filters, strict=True)
    )
    return (
        f"{each} filters of the first layer of {' and '.join(filters.models)}. Mean difference of "
        f"neighbouring weights, in standard deviations of the filter: {rough}; less is smoother."
    )


def _sheet(filters: NDArray[Any]) -> NDArray[Any]:
    columns = round(len(filters) ** 0.5)
    rows = -(-len(filters) // columns)
    high, wide = filters.shape[1:]
    sheet = np.full((rows * (high + 2) + 2, columns * (wide + 2) + 2), 1.0)
    for place, each in enumerate(filters):
        top, left = 2 + place // columns * (high + 2), 2 + place % columns * (wide + 2)
        sheet[top : top + high, left : left + wide] = each / (np.abs(each).max() or 1.0)
    return sheet


def _roughness(filters: NDArray[Any]) -> float:
    values = filters.astype(np.float64)
    steps = np.abs(np.diff(values, axis=2)).mean(axis=(1, 2))
    return float((steps / np.maximum(values.std(axis=(1, 2)), 1e-12)).mean())


@_figure.register
def _(sweep: Sweep) -> Figure:
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axis, strip = figure.subplots(2, 1, height_ratios=(4, 1), sharex=False)
    for low, high in _regions(sweep):
        axis.axvspan(low, high, color="#f2e394", alpha=0.9, lw=0)
    for place, name in enumerate(sweep.classes):
        own = place == sweep.label
        axis.plot(
            sweep.epsilons,
            sweep.logits[:, place],
            color="black" if own else COLOURS[place % (len(COLOURS) - 1)],
            linestyle="-" if own else ("-", "--", ":")[place * 3 // len(sweep.classes)],
            lw=2.6 if own else 1.3,
            label=f"{name} (its class)" if own else name,
        )
    axis.set_ylabel("logit")
    axis.set_xlabel("ε (units of the input), along sign(∇x J)")
    axis.margins(x=0)
    axis.grid(visible=True, color="#dddddd", lw=0.6)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    _strip(strip, sweep)
    _caption(figure, f"{sweep.model}, {sweep.example}; yellow: classified correctly")
    return figure


@describe.register
def _(sweep: Sweep) -> str:
    name = sweep.classes[sweep.label]
    where = ", ".join(f"from {low:.3g} to {high:.3g}" for low, high in _regions(sweep)) or "nowhere"
    first, last = sweep.logits[0].argmax(), sweep.logits[-1].argmax()
    return (
        f"The {len(sweep.classes)} logits of {sweep.model} for {sweep.example}, moved by ε along "
        f"the sign of its gradient, ε from {sweep.epsilons[0]:.3g} to {sweep.epsilons[-1]:.3g}. It "
        f"is classified correctly, as {name}, for ε {where}; at the ends as "
        f"{sweep.classes[first]} and {sweep.classes[last]}. Below, the inputs themselves."
    )


def _regions(sweep: Sweep) -> list[tuple[float, float]]:
    """Returns the ranges of epsilon in which the example is classified correctly."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sweep.correct.astype(int), [0]])))
    return [
        (float(sweep.epsilons[start]), float(sweep.epsilons[end - 1]))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _strip(axis: Axes, sweep: Sweep) -> None:
    side = sweep.strip.shape[-1]
    pitch = side * 1.15
    for place, (epsilon, each) in enumerate(zip(sweep.shown, sweep.strip, strict=True)):
        left = place * pitch
        # Each input in its own scale, so that the digit is visible at every epsilon.
        axis.imshow(each, cmap="gray", extent=(left, left + side, side, 0))
        nearest = int(np.abs(sweep.epsilons - epsilon).argmin())
        if sweep.correct[nearest]:
            axis.add_patch(Rectangle((left, 0), side, side, fill=False, edgecolor="#c8a800", lw=3))
        axis.text(left + side / 2, side * 1.12, f"{epsilon:.3g}", ha="center", va="top", fontsize=9)
    axis.set_xlim(-2, len(sweep.shown) * pitch)
    axis.set_ylim(side * 1.5, -2)
    axis.set_aspect("equal")
    axis.set_axis_off()


def _picture(axis: Axes, picture: NDArray[Any]) -> None:
    axis.imshow(picture, cmap="gray", interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
