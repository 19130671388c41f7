"""The charts of a page as geometry: positions of lines, bands, marks, bars and texts.

Templates turn them into SVG, escape all text and take colours from the page's style, so that a
chart is light or dark with the page and sharp in print.  Each model has its own colour, marker and
dash pattern; no chart depends on colour alone, and each has a description in words.  Lengths are in
SVG user units, with the origin at the top left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gibbon.core.threat import Epsilon
from gibbon.metrics.nearest import Curve
from gibbon.report.content.chart_data.confidence import BINS, Confidence, Confidences
from gibbon.report.content.chart_data.curves import Panel, Point
from gibbon.report.content.parts.lookup import Condition, Measured, RunLookup
from gibbon.report.content.parts.number_format import count, interval, percent
from gibbon.specs.suite import AttackSpec, Experiment

_Place = Callable[[float], float]

COLOURS: Final = 7  # that the page's style sheet defines
_MOST_POINTS = 160  # of a whole curve
_TICKS_AT_MOST = 6
_TICK_ROOM = 36.0  # between the middles of two labels of an axis
_WIDTH, _HEIGHT = 380.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 40.0


@dataclass(frozen=True)
class ModelStyle:
    """The style of a model in all charts of a page.

    ``colour`` is a number that the page's style sheet defines, ``marker`` an SVG path around
    (0, 0), ``dash`` an SVG dash pattern.
    """

    colour: int
    marker: str
    dash: str


_MARKERS: Final = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",  # disc
    "M-3.6 -3.6h7.2v7.2h-7.2z",  # square
    "M0 -4.8L4.4 3.4H-4.4z",  # triangle
    "M0 -5L4.4 0L0 5L-4.4 0z",  # diamond
    "M0 4.8L4.4 -3.4H-4.4z",  # triangle that points down
    "M-1.5 -4.6h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1v-3h3.1z",  # plus
    "M-4.4 -4.4h8.8L0 0zM-4.4 4.4h8.8L0 0z",  # hourglass
)
_DASHES: Final = ("", "7 3", "7 3 2 3", "2 3")


@dataclass(frozen=True)
class Tick:
    """A tick of an axis and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Frame:
    """The rectangle of a chart's axes, in a picture of ``width`` and ``height``."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    def across(self, share: float) -> float:
        """Returns the x of a share of the horizontal axis."""
        return self.left + (self.right - self.left) * share

    def up(self, share: float) -> float:
        """Returns the y of a share of the vertical axis."""
        return self.bottom - (self.bottom - self.top) * share


@dataclass(frozen=True)
class Mark:
    """A measured point: its position, its interval on the axis of errors, and its description."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Series:
    """The line, band and marks of one model."""

    name: str
    look: ModelStyle
    line: str
    band: str
    marks: tuple[Mark, ...]
    whiskers: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with its axes and a description in words.

    ``sideways`` says that the axis of errors is horizontal.
    """

    title: str
    description: str
    frame: Frame
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    sideways: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Histogram:
    """Confidences of right answers, above the middle, and of wrong answers, below it."""

    title: str
    description: str
    width: float
    height: float
    middle: float
    right: tuple[Bar, ...]
    wrong: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    right_words: str
    wrong_words: str


def model_styles(names: Iterable[str]) -> Mapping[str, ModelStyle]:
    """Returns the style of each model.

    >>> model_styles(["softmax", "maxout"])["maxout"].colour
    1
    """
    return {
        name: ModelStyle(
            place % COLOURS,
            # When the colours repeat, each comes with another marker.
            _MARKERS[(place + place // COLOURS) % len(_MARKERS)],
            _DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(dict.fromkeys(names))
    }


def error_chart(panel: Panel, epsilons: Sequence[Epsilon], look: Mapping[str, ModelStyle]) -> Chart:
    """Returns error against epsilon of one attack on one dataset, with a line for each model."""
    end = panel.end or 1.0
    frame = Frame(_WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM)

    def x(epsilon: float) -> float:
        return frame.across(min(epsilon / end, 1.0))

    series = []
    for name, points in panel.curves.items():
        marks = tuple(_marks(name, points, x=x, y=frame.up))
        whole = panel.whole.get(name)
        if whole is None:
            series.append(Series(name, look[name], *_line_and_band(marks), marks))
        else:
            line = _steps(whole, x=x, y=frame.up, end=end)
            series.append(Series(name, look[name], line, "", marks, whiskers=True))
    return Chart(
        title=f"{panel.attack} on {panel.dataset}",
        description=". ".join(_curve_text(name, each) for name, each in panel.curves.items()),
        frame=frame,
        x_ticks=_epsilon_ticks(epsilons, end=end, x=x),
        y_ticks=percent_ticks(frame.up),
        x_label="ε, units of the input",
        y_label="error",
        series=tuple(series),
    )


def percent_ticks(place: _Place) -> tuple[Tick, ...]:
    """Returns ticks at the quarters of an axis of rates."""
    return tuple(Tick(place(at / 4), f"{25 * at} %") for at in range(5))


def attack_chart(
    results: RunLookup,
    experiment: Experiment,
    attacks: Sequence[AttackSpec],
    look: Mapping[str, ModelStyle],
) -> Chart | None:
    """Returns the errors of attacks that were run at one epsilon, or None if there are none.

    Each attack has a row, each model a mark in it.
    """
    names = [model.name for model in experiment.models]
    row = 14.0 + 9.0 * len(names)
    labels = [f"{attack.label}, ε = {attack.epsilon[0]}" for attack in attacks]
    left = min(30.0 + 6.2 * max(map(len, labels)), _WIDTH * 0.5)
    bottom = _TOP + row * len(attacks)
    frame = Frame(_WIDTH, bottom + _BOTTOM, left, _WIDTH - _RIGHT - 6, _TOP, bottom)
    x = frame.across
    marks: dict[str, list[Mark]] = {}
    words: dict[str, list[str]] = {}
    for place, attack in enumerate(attacks):
        condition = Condition(experiment.dataset.name, attack.label, attack.epsilon[0])
        for position, name in enumerate(names):
            measured = results.error(condition, name)
            what = f"{attack.label} at ε = {condition.epsilon} {_text(measured)}"
            words.setdefault(name, []).append(what)
            if measured.rate is None:
                continue
            y = _TOP + row * place + 11.5 + 9.0 * position
            low, high = measured.ends
            marks.setdefault(name, []).append(
                Mark(x(measured.rate), y, x(low), x(high), f"{name}: {what}")
            )
    if not marks:
        return None
    return Chart(
        title=f"Attacks at one ε on {experiment.dataset.name}",
        description=". ".join(f"{name}: {', '.join(each)}" for name, each in words.items()),
        frame=frame,
        x_ticks=percent_ticks(x),
        y_ticks=tuple(
            Tick(_TOP + row * (place + 0.5), label) for place, label in enumerate(labels)
        ),
        x_label="adversarial error",
        y_label="",
        series=tuple(
            Series(name, look[name], "", "", tuple(each), whiskers=True)
            for name, each in marks.items()
        ),
        sideways=True,
    )


def histogram(title: str, found: Confidences) -> Histogram:
    """Returns the histogram of one cell: bars upwards for right answers, downwards for wrong ones.

    The largest bin fills half the height, to show the shape; the texts give the counts.
    """
    width, height, margin = 190.0, 118.0, 4.0
    middle, reach = 51.0, 47.0
    largest = max(*found.right.counts, *found.wrong.counts, 1)
    step = (width - 2 * margin) / BINS

    def bars(of: Confidence, *, up: bool) -> tuple[Bar, ...]:
        found = []
        for place, each in enumerate(of.counts):
            if each:
                tall = max(reach * each / largest, 0.6)
                start = margin + place * step + 0.5, middle - tall if up else middle
                found.append(Bar(*map(_rounded, (*start, step - 1, tall))))
        return tuple(found)

    right_words, wrong_words = _answers_text(found.right), _answers_text(found.wrong)
    return Histogram(
        title=title,
        description=f"right answers: {right_words}; wrong answers: {wrong_words}",
        width=width,
        height=height,
        middle=middle,
        right=bars(found.right, up=True),
        wrong=bars(found.wrong, up=False),
        x_ticks=tuple(
            Tick(margin + (width - 2 * margin) * at, text)
            for at, text in ((0.0, "0"), (0.5, "50 %"), (1.0, "100 %"))
        ),
        right_words=right_words,
        wrong_words=wrong_words,
    )


def _line_and_band(marks: Sequence[Mark]) -> tuple[str, str]:
    lows = [f"{_rounded(mark.x)} {_rounded(mark.low)}" for mark in marks]
    highs = [f"{_rounded(mark.x)} {_rounded(mark.high)}" for mark in marks]
    line = "M" + "L".join(f"{_rounded(mark.x)} {_rounded(mark.y)}" for mark in marks)
    return line, "M" + "L".join([*highs, *reversed(lows)]) + "z"


def _steps(curve: Curve, *, x: _Place, y: _Place, end: float) -> str:
    """Returns the line of a curve that is known at every epsilon."""
    shown = curve.epsilons[curve.epsilons < end].tolist()
    every = -(-len(shown) // _MOST_POINTS) or 1
    start = f"M{_rounded(x(0.0))} {_rounded(y(curve.at(0.0)))}"
    return start + "".join(
        f"H{_rounded(x(epsilon))}V{_rounded(y(curve.at(epsilon)))}"
        for epsilon in [*shown[::every], end]
    )


def _marks(name: str, points: Sequence[Point], *, x: _Place, y: _Place) -> Iterator[Mark]:
    for point in points:
        if point.measured.rate is not None:
            low, high = point.measured.ends
            words = f"{name}, ε = {point.epsilon:.4g}: {_text(point.measured)}"
            yield Mark(x(point.epsilon), y(point.measured.rate), y(low), y(high), words)


def _text(measured: Measured) -> str:
    if measured.rate is None:
        return measured.state
    return f"{percent(measured.rate)} {interval(measured)}"


def _curve_text(name: str, points: Sequence[Point]) -> str:
    first, *_, last = (
        f"{percent(each.measured.rate)} at ε = {each.epsilon:.4g}"
        for each in (points[0], points[-1])
    )
    return f"{name}: {first}" if len(points) == 1 else f"{name}: from {first} to {last}"


def _answers_text(of: Confidence) -> str:
    if of.mean is None:
        return "none"
    return f"{count(of.examples)}, mean {percent(of.mean)}"


def _epsilon_ticks(epsilons: Sequence[Epsilon], *, end: float, x: _Place) -> tuple[Tick, ...]:
    """Returns ticks at the attack's epsilons, as they were written, or at round numbers."""
    own = [
        Tick(x(0.0), "0"),
        *(Tick(x(float(each)), str(each)) for each in sorted(epsilons) if 0 < float(each) <= end),
    ]
    apart = all(two.at - one.at >= _TICK_ROOM for one, two in pairwise(own))
    if len(own) > 1 and apart and len(own) <= _TICKS_AT_MOST + 1:
        return tuple(own)
    step = _round_step(end / _TICKS_AT_MOST)
    return tuple(
        Tick(x(place * step), f"{place * step:.4g}") for place in range(int(end / step + 1e-9) + 1)
    )


def _round_step(least: float) -> float:
    """Returns the next number of 1, 2 or 5 times a power of ten.

    >>> _round_step(0.03), _round_step(0.7)
    (0.05, 1.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * 0.999)


def _rounded(length: float) -> float:
    return round(length, 1)
