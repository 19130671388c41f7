"""Charts of published and measured numbers: a line from one value to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gibbon.report.content.parts.lookup import Measured, RunLookup
from gibbon.report.content.parts.number_format import as_published, interval, percent
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.report.content.published_numbers.published import measure_in_words, models_in_words
from gibbon.report.content.published_numbers.verdicts import KINDS, verdict
from gibbon.report.html.charts import Frame, Tick, percent_ticks
from gibbon.specs.published import PublishedRow

_ROWS: Final = 12  # of one chart
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 380.0, 8.0, 368.0, 4.0, 31.0, 24.0
_MOST_LETTERS: Final = 58


@dataclass(frozen=True)
class MeasuredMark:
    """The number measured under one attack, with its interval from ``low`` to ``high``."""

    x: float
    low: float
    high: float
    main: bool
    words: str


@dataclass(frozen=True)
class PublishedLine:
    """A published number with the measured numbers."""

    y: float
    label: str
    verdict: str
    x: float
    found: tuple[MeasuredMark, ...]
    words: str


@dataclass(frozen=True)
class PublishedChart:
    """A chart of some published rows, with a description in words."""

    title: str
    description: str
    frame: Frame
    ticks: tuple[Tick, ...]
    rows: tuple[PublishedLine, ...]


def published_charts(results: RunLookup) -> Iterator[PublishedChart]:
    """Yields charts of the measured rows, with a dozen rows each, in the suite's order."""
    rows = [
        row
        for row in results.record.suite.published
        if row.value is not None
        and any(_measured(results, row, attack).rate is not None for attack in row.attack)
    ]
    for start in range(0, len(rows), _ROWS):
        yield _chart(results, rows[start : start + _ROWS])


def tally(results: RunLookup) -> tuple[tuple[int, str], ...]:
    """Returns the number of rows of each verdict; empty if no row has a verdict."""
    found = (verdict(row, results) for row in results.record.suite.published)
    counts = Counter(each.word for each in found if each is not None)
    return tuple((counts[word], word) for word in KINDS if counts[word])


def _chart(results: RunLookup, rows: Sequence[PublishedRow]) -> PublishedChart:
    drawn = tuple(_row(results, row, place) for place, row in enumerate(rows))
    bottom = _TOP + _ROW * len(rows)
    first, last = rows[0].section, rows[-1].section
    sections = f"section {first}" if first == last else f"sections {first} to {last}"
    return PublishedChart(
        title=f"Published and measured, {sections}",
        description=". ".join(each.words for each in drawn),
        frame=Frame(_WIDTH, bottom + _BOTTOM, _LEFT, _RIGHT, _TOP, bottom),
        ticks=percent_ticks(_x),
        rows=drawn,
    )


def _row(results: RunLookup, row: PublishedRow, place: int) -> PublishedLine:
    found = tuple(
        _found(measured, attack, main=attack == row.attack[0])
        for attack in row.attack
        if (measured := _measured(results, row, attack)).rate is not None
    )
    judged = verdict(row, results)
    label = f"{models_in_words(row)}: {measure_in_words(row)}"
    value = row.value or 0.0
    word = judged.word if judged is not None else ""
    limit = {"upper": "at most ", "lower": "at least ", None: "more than " if row.above else ""}
    text = f"published {limit[row.bound]}{as_published(value)}"
    words = f"{label}: {text}, measured {', '.join(each.words for each in found)}"
    return PublishedLine(
        y=_TOP + _ROW * place,
        label=label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…",
        verdict=word,
        x=_x(value),
        found=found,
        words=f"{words} ({word})" if word else words,
    )


def _measured(results: RunLookup, row: PublishedRow, attack: str) -> Measured:
    return OverTrainings.of(row, results, attack).measured


def _found(measured: Measured, attack: str, *, main: bool) -> MeasuredMark:
    low, high = measured.ends
    bounds = "" if measured.low is None else f" {interval(measured)}"
    words = f"{percent(measured.rate)}{bounds} under {attack}"
    return MeasuredMark(_x(measured.rate or 0.0), _x(low), _x(high), main, words)


def _x(rate: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * rate, 1)
