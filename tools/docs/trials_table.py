"""The tables of the trials that recipes were chosen by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gibbon.core.errors import RecordError, UnknownNameError
from tools.docs.cards_table import pair, percent
from tools.pipe_table import pipe_table
from tools.zoo.trials import found_in, tables

HEADINGS: Final = {
    "clean": "clean",
    "train": "clean, training images",
    "mean confidence": "mean confidence, clean",
    "fgsm": "FGSM",
    "fgsm/confidence": "FGSM / confidence",
    "naive": "naive FGSM",
    "naive/confidence": "naive FGSM / confidence",
    "clipped": "clipped FGSM",
    "weights": "‖w‖₁",
    "units": "units of layer 1 / 2",
}


def trials_table(record: Path, name: str) -> str:
    """Returns one table of a record of trials in markdown, rates in per cent.

    Raises `UnknownNameError` if the list of trials has no such table, and `RecordError` if the
    record lacks one of its trials as it is listed now.
    """
    known = {each.name: each for each in tables()}
    if name not in known:
        raise UnknownNameError("table of trials", name, known=known)
    table, rows = known[name], json.loads(record.read_text(encoding="utf-8"))
    lines = []
    for trial in table.trials:
        found = found_in(rows, trial)
        if found is None:
            raise RecordError(
                f"{record}: lacks the trial {trial.label!r} of {name}; run "
                f"python -m tools.zoo.trials {name}"
            )
        lines.append([trial.label, *(cell(found["figures"], each) for each in table.columns)])
    return pipe_table(lines, [table.heading, *(heading(each) for each in table.columns)])


def heading(column: str) -> str:
    """Returns the head of a column.

    >>> heading("pgd 20 0.1"), heading("noise-sign 0.1"), heading("clipped")
    ('PGD, 20 steps, ε = 0.1', 'noise of ±0.1', 'clipped FGSM')
    """
    kind, *rest = column.split()
    if kind == "pgd":
        return f"PGD, {rest[0]} steps, ε = {rest[1]}"
    if kind == "noise-sign":
        return f"noise of ±{rest[0]}"
    return HEADINGS[column]


def cell(figures: Mapping[str, Any], column: str) -> str:
    """Returns a column's text.

    >>> cell({"clean": 0.0123, "fgsm": 0.91, "fgsm confidence": None}, "clean")
    '1.23'
    >>> cell({"fgsm": 0.91, "fgsm confidence": 0.5}, "fgsm/confidence")
    '91.0 / 50.0'
    """
    if column == "weights":
        return f"{figures['weights']:.1f}"
    if column == "units":
        return f"{figures['units 1']:.1f} / {figures['units 2']:.1f}"
    if column.endswith("/confidence"):
        kind = column.partition("/")[0]
        return pair(figures[kind], figures[f"{kind} confidence"])
    return percent(figures[column], 2 if column in ("clean", "train") else 1)
