"""Error against ε at every ε, from the distances that a search stored for each example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gibbon.metrics.nearest import Curve, error_curve
from gibbon.records.outcomes import OUTCOMES, read_outcome
from gibbon.records.run import RunRecord

# By dataset, model and attack.
WholeCurves = Mapping[tuple[str, str, str], Curve]
NO_CURVES: Final[WholeCurves] = {}


def whole_curves(record: RunRecord, folder: Path) -> WholeCurves:
    """Returns the error curves of a run, from the outcomes in its folder.

    Only attacks that search for the smallest distance have one, and only if outcomes are stored.
    """
    curves: dict[tuple[str, str, str], Curve] = {}
    for each in record.evaluations:
        key = (each.dataset, each.model, each.attack)
        if each.nearest_found is None or key in curves:  # one search served every epsilon
            continue
        outcome = read_outcome(folder / OUTCOMES, each.digest)
        if outcome is not None and outcome.nearest is not None:
            curves[key] = error_curve(outcome.nearest)
    return curves
