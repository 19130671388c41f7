"""Published numbers beside measured ones, drawn: a line a number, its ends the two values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gibbon.report.content.lookup import Measured, Results
from gibbon.report.content.number_format import as_published, interval, percent
from gibbon.report.content.published import measure_in_words, models_in_words, verdict
from gibbon.report.html.charts import Tick
from gibbon.specs.published import PublishedRow

_ROWS: Final = 12  # of one chart
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 380.0, 8.0, 368.0, 4.0, 31.0, 24.0
_MOST_LETTERS: Final = 58
_ORDER: Final = ("reproduced", "differs", "failed", "not run")


@dataclass(frozen=True)
class Found:
    """What was measured under one attack: ``low`` to ``high`` is its interval."""

    x: float
    low: float
    high: float
    main: bool
    words: str


@dataclass(frozen=True)
class Beside:
    """One published number and what was measured of it; ``x`` is None where no run measures it."""

    y: float
    label: str
    verdict: str
    x: float | None
    found: tuple[Found, ...]
    words: str


@dataclass(frozen=True)
class PublishedChart:
    """Some of the rows, drawn; ``description`` says them in words."""

    title: str
    description: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    ticks: tuple[Tick, ...]
    rows: tuple[Beside, ...]


def published_charts(results: Results) -> Iterator[PublishedChart]:
    """Yields charts of the rows that were measured, a dozen rows each, in the suite's order."""
    rows = [
        row
        for row in results.record.suite.published
        if row.value is not None
        and any(results.published(row, attack).rate is not None for attack in row.attack)
    ]
    for start in range(0, len(rows), _ROWS):
        yield _chart(results, rows[start : start + _ROWS])


def tally(results: Results) -> tuple[tuple[int, str], ...]:
    """Returns how many rows got which verdict; empty where none is judged."""
    found = (verdict(row, results) for row in results.record.suite.published)
    counts = Counter(each.word for each in found if each is not None)
    return tuple((counts[word], word) for word in _ORDER if counts[word])


def _chart(results: Results, rows: Sequence[PublishedRow]) -> PublishedChart:
    drawn = tuple(_row(results, row, place) for place, row in enumerate(rows))
    bottom = _TOP + _ROW * len(rows)
    first, last = rows[0].section, rows[-1].section
    sections = f"section {first}" if first == last else f"sections {first} to {last}"
    return PublishedChart(
        title=f"Published and measured, {sections}",
        description=". ".join(each.words for each in drawn),
        width=_WIDTH,
        height=bottom + _BOTTOM,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=bottom,
        ticks=tuple(Tick(_x(at / 4), f"{25 * at} %") for at in range(5)),
        rows=drawn,
    )


def _row(results: Results, row: PublishedRow, place: int) -> Beside:
    found = tuple(
        _found(measured, attack, main=attack == row.attack[0])
        for attack in row.attack
        if (measured := results.published(row, attack)).rate is not None
    )
    judged = verdict(row, results)
    label = f"{models_in_words(row)}: {measure_in_words(row)}"
    value = row.value or 0.0
    word = judged.word if judged is not None else ""
    said = f"published {'more than ' if row.above else ''}{as_published(value)}"
    words = f"{label}: {said}, measured {', '.join(each.words for each in found)}"
    return Beside(
        y=_TOP + _ROW * place,
        label=label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…",
        verdict=word,
        x=_x(value),
        found=found,
        words=f"{words} ({word})" if word else words,
    )


def _found(measured: Measured, attack: str, *, main: bool) -> Found:
    rate = measured.rate or 0.0
    low = rate if measured.low is None else measured.low
    high = rate if measured.high is None else measured.high
    bounds = "" if measured.low is None else f" {interval(low, high, rate=rate)}"
    return Found(_x(rate), _x(low), _x(high), main, f"{percent(rate)}{bounds} under {attack}")


def _x(rate: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * rate, 1)
