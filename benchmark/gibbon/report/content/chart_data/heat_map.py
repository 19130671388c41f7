"""Transfer matrices as heat maps of table cells, which show every number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gibbon.records.flags import kinds_text
from gibbon.report.content.parts.layout import NOTHING
from gibbon.report.content.parts.lookup import Condition, Measured, RunLookup, largest_epsilons
from gibbon.report.content.parts.number_format import count, interval, rate_alone, state_cell
from gibbon.report.content.tables.transfer import Matrix, matrices

# Cividis, of J. R. Nuñez, C. R. Anderton and R. S. Renslow (2018), "Optimizing colormaps with
# consideration for color vision deficiency", https://doi.org/10.1371/journal.pone.0199239: at
# eighths of the way.
_CIVIDIS: Final = (
    *((0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115)),
    *((138, 134, 120), (165, 156, 116), (195, 179, 105), (254, 232, 56)),
)
_WHITE, _BLACK = "#ffffff", "#000000"


@dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map: text, description, and colours, which are empty without a number."""

    text: str
    words: str
    background: str
    ink: str
    own: bool


@dataclass(frozen=True)
class HeatMap:
    """A transfer matrix as a heat map: rows are sources, columns targets."""

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class HeatMaps:
    """All matrices of one attack at one epsilon."""

    condition: Condition
    maps: tuple[HeatMap, ...]
    largest: bool


def heat_maps(results: RunLookup) -> Iterator[HeatMaps]:
    """Yields the matrices of each transferred attack at each epsilon."""
    for experiment in results.experiments:
        conditions = list(results.transfer_conditions(experiment))
        largest = largest_epsilons(conditions)
        for condition in conditions:
            yield HeatMaps(
                condition,
                tuple(map(_map, matrices(results, experiment, condition))),
                condition == largest[condition.attack],
            )


def colours(rate: float) -> tuple[str, str]:
    """Returns the colour of a rate, and of the text on it: black or white by contrast.

    >>> colours(0.0), colours(1.0)
    (('#00224e', '#ffffff'), ('#fee838', '#000000'))
    """
    place = min(max(rate, 0.0), 1.0) * (len(_CIVIDIS) - 1)
    low, high = list(pairwise(_CIVIDIS))[min(int(place), len(_CIVIDIS) - 2)]
    share = place - min(int(place), len(_CIVIDIS) - 2)
    mixed = [round(one + (two - one) * share) for one, two in zip(low, high, strict=True)]
    background = "#" + "".join(f"{each:02x}" for each in mixed)
    return background, max((_WHITE, _BLACK), key=lambda ink: contrast(background, ink))


def contrast(one: str, two: str) -> float:
    """Returns the contrast ratio of two colours such as ``#0072b2``, as WCAG 2 defines it.

    >>> contrast("#ffffff", "#000000")
    21.0
    """
    lighter, darker = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _map(matrix: Matrix) -> HeatMap:
    rows = tuple(
        (source, tuple(_cell(matrix.rates[source, each], source, each) for each in matrix.models))
        for source in matrix.models
    )
    return HeatMap(matrix.kind.title, matrix.models, rows)


def _cell(measured: Measured, source: str, target: str) -> HeatCell:
    own, pair = source == target, f"{source} → {target}"
    if measured.state != "done":
        word = state_cell(measured.state).text
        return HeatCell(word, f"{pair}: {word}", "", "", own)
    if measured.rate is None:
        return HeatCell(NOTHING.text, f"{pair}: no examples", "", "", own)
    cell = rate_alone(measured)
    words = f"{pair}: {cell.marked}"
    if measured.low is not None:
        words += f" {interval(measured)}"
    if measured.whole is not None:
        words += f" of {count(measured.whole)}"
    if cell.flags:
        words += f"; {kinds_text(cell.flags)}"
    return HeatCell(cell.marked, words, *colours(measured.rate), own)
