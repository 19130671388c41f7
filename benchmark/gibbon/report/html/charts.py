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
from gibbon.report.content.confidence import BINS, Confidence, Confidences
from gibbon.report.content.curves import Panel, Point
from gibbon.report.content.lookup import Condition, Measured, RunLookup
from gibbon.report.content.number_format import count, interval, percent
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
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
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


def looks(names: Iterable[str]) -> Mapping[str, ModelStyle]:
    """Returns the style of each model.

    >>> looks(["softmax", "maxout"])["maxout"].colour
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
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(epsilon: float) -> float:
        return _LEFT + (right - _LEFT) * min(epsilon / end, 1.0)

    def y(rate: float) -> float:
        return bottom - (bottom - _TOP) * rate

    series = tuple(
        _steps(name, look[name], panel.whole[name], points, x=x, y=y, end=end)
        if name in panel.whole
        else _line(name, look[name], points, x=x, y=y)
        for name, points in panel.curves.items()
    )
    return Chart(
        title=f"{panel.attack} on {panel.dataset}",
        description=". ".join(_curve_text(name, each) for name, each in panel.curves.items()),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=_epsilon_ticks(epsilons, end=end, x=x),
        y_ticks=tuple(Tick(y(at / 4), f"{25 * at} %") for at in range(5)),
        x_label="ε, units of the input",
        y_label="error",
        series=series,
    )


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
    label_room = 30.0 + 6.2 * max(
        len(f"{attack.label}, ε = {attack.epsilon[0]}") for attack in attacks
    )
    left = min(label_room, _WIDTH * 0.5)
    right, bottom = _WIDTH - _RIGHT - 6, _TOP + row * len(attacks)

    def x(rate: float) -> float:
        return left + (right - left) * rate

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
        width=_WIDTH,
        height=bottom + _BOTTOM,
        left=left,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=tuple(Tick(x(at / 4), f"{25 * at} %") for at in range(5)),
        y_ticks=tuple(
            Tick(_TOP + row * (place + 0.5), f"{attack.label}, ε = {attack.epsilon[0]}")
            for place, attack in enumerate(attacks)
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
        heights = ((place, reach * each / largest) for place, each in enumerate(of.counts) if each)
        return tuple(
            Bar(
                _rounded(margin + place * step + 0.5),
                _rounded(middle - tall if up else middle),
                _rounded(step - 1),
                _rounded(tall),
            )
            for place, each in heights
            for tall in [max(each, 0.6)]
        )

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


def _line(name: str, look: ModelStyle, points: Sequence[Point], *, x: _Place, y: _Place) -> Series:
    marks = tuple(_marks(name, points, x=x, y=y))
    lows = [f"{_rounded(mark.x)} {_rounded(mark.low)}" for mark in marks]
    highs = [f"{_rounded(mark.x)} {_rounded(mark.high)}" for mark in marks]
    return Series(
        name,
        look,
        "M" + "L".join(f"{_rounded(mark.x)} {_rounded(mark.y)}" for mark in marks),
        "M" + "L".join([*highs, *reversed(lows)]) + "z",
        marks,
    )


def _steps(
    name: str,
    look: ModelStyle,
    curve: Curve,
    points: Sequence[Point],
    *,
    x: _Place,
    y: _Place,
    end: float,
) -> Series:
    """Returns a curve that is known at every epsilon, with marks at the attack's epsilons."""
    shown = curve.epsilons[curve.epsilons < end].tolist()
    every = -(-len(shown) // _MOST_POINTS) or 1
    path = [f"M{_rounded(x(0.0))} {_rounded(y(curve.at(0.0)))}"]
    path += [
        f"H{_rounded(x(epsilon))}V{_rounded(y(curve.at(epsilon)))}" for epsilon in shown[::every]
    ]
    path.append(f"H{_rounded(x(end))}V{_rounded(y(curve.at(end)))}")
    marks = tuple(_marks(name, points, x=x, y=y))
    return Series(name, look, "".join(path), "", marks, whiskers=True)


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
    first, last = points[0], points[-1]
    if first is last:
        return f"{name}: {percent(first.measured.rate)} at ε = {first.epsilon:.4g}"
    return (
        f"{name}: from {percent(first.measured.rate)} at ε = {first.epsilon:.4g} to "
        f"{percent(last.measured.rate)} at ε = {last.epsilon:.4g}"
    )


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
