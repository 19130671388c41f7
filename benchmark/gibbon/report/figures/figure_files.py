"""The figures of a run as files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from gibbon.records.illustration import illustrations
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.curves import panels
from gibbon.report.content.chart_data.distance_curves import whole_curves
from gibbon.report.content.parts.lookup import RunLookup, largest_epsilons
from gibbon.report.content.tables.transfer import matrices
from gibbon.report.figures.illustrations import draw
from gibbon.report.figures.plots import (
    curve_digest,
    error_curves,
    house_style,
    rendered,
    transfer_heat_map,
)

FORMATS = (".svg", ".png")


def figure_files(record: RunRecord, run: Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of each figure: illustrations, error curves, transfer matrices.

    Transfer matrices are drawn at the largest ε of each attack.

    Raises `RecordError` if an illustration can't be read.
    """
    for illustration in illustrations(run):
        drawing = draw(illustration)
        yield f"{drawing.name}.svg", drawing.svg
        yield f"{drawing.name}.png", drawing.png
    with house_style():
        drawn = panels(record, whole=whole_curves(record, run))
        for suffix in FORMATS if drawn else ():
            content = rendered(error_curves(drawn), suffix, curve_digest(record))
            yield f"error-against-epsilon{suffix}", content
        results = RunLookup(record)
        taken: set[str] = set()
        for experiment in results.experiments:
            for condition in largest_epsilons(results.transfer_conditions(experiment)).values():
                for matrix in matrices(results, experiment, condition):
                    parts = (condition.dataset, condition.attack, matrix.kind.name)
                    name = _name("transfer", *parts, taken=taken)
                    for suffix in FORMATS:
                        yield f"{name}{suffix}", rendered(transfer_heat_map(matrix), suffix, "")


def _name(*parts: str, taken: set[str]) -> str:
    """Returns a file name that is not in ``taken``, and adds it there."""
    plain = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")
    # Names that differ only in punctuation or case, such as a.b and a-b, become equal.
    names = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name
