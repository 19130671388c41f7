"""Transfer matrices as heat maps made of table cells: every number is there to be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from gibbon.report.content.layout import FAILED, NOT_RUN, NOTHING
from gibbon.report.content.lookup import Cut, Measured, Results
from gibbon.report.content.number_format import count, interval, percent
from gibbon.report.content.transfer import MATRICES, Matrix, transferred
from gibbon.specs.suite import Experiment

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
    """One place of a heat map: its words, its colours (empty where there is no number)."""

    text: str
    words: str
    background: str
    ink: str
    own: bool


@dataclass(frozen=True)
class HeatMap:
    """One transfer matrix: rows are sources, columns targets."""

    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class HeatMaps:
    """All matrices of one attack at one epsilon."""

    cut: Cut
    maps: tuple[HeatMap, ...]
    largest: bool


def heat_maps(results: Results) -> Iterator[HeatMaps]:
    """Yields the matrices of each attack at each epsilon that was scored on other models."""
    for experiment in results.experiments:
        cuts = list(results.transfer_cuts(experiment))
        for cut in cuts:
            largest = max(each.epsilon for each in cuts if each.attack == cut.attack)
            yield HeatMaps(
                cut,
                tuple(_map(results, experiment, cut, matrix) for matrix in MATRICES),
                cut.epsilon == largest,
            )


def colours(rate: float) -> tuple[str, str]:
    """Returns the colour of a rate, and black or white: whichever is better read on it.

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


def _map(results: Results, experiment: Experiment, cut: Cut, matrix: Matrix) -> HeatMap:
    names = tuple(model.name for model in experiment.models)
    return HeatMap(
        matrix.title,
        names,
        tuple(
            (
                source,
                tuple(
                    _cell(transferred(results, cut, source, target, matrix), source, target)
                    for target in names
                ),
            )
            for source in names
        ),
    )


def _cell(measured: Measured, source: str, target: str) -> HeatCell:
    own = source == target
    if measured.state != "done":
        word = FAILED if measured.state == "failed" else NOT_RUN
        return HeatCell(word, f"{source} → {target}: {word}", "", "", own)
    if measured.rate is None:
        return HeatCell(NOTHING, f"{source} → {target}: no examples", "", "", own)
    words = f"{source} → {target}: {percent(measured.rate)}"
    if measured.low is not None:
        words += f" {interval(measured.low, measured.high, rate=measured.rate)}"
    if measured.whole is not None:
        words += f" of {count(measured.whole)}"
    background, ink = colours(measured.rate)
    return HeatCell(percent(measured.rate), words, background, ink, own)
