"""The table of a training: errors on held-out examples, and the schedules, over the epochs."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.pipe_table import pipe_table

EVERY = 50  # epochs between two rows
EARLY = (1, 10, 20)  # further epochs with a row
SEARCH = "search"  # the part of a training whose best epoch is looked for
PARTS = {SEARCH: "first", "second": "second"}
HEADERS = (
    *("part", "epoch", "objective", "rate", "momentum", "clean"),
    *("FGSM", "confidence on its mistakes"),
)

LogRow = Mapping[str, str]


def training_table(log: Path) -> str:
    """Returns a row for every 50th epoch, the best one and the last of each part, in markdown."""
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [_line(row, best=row is best_row(rows)) for row in _shown(rows)]
    return pipe_table(lines, HEADERS)


def _shown(rows: Sequence[LogRow]) -> Iterator[LogRow]:
    best = best_row(rows)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is None or following["part"] != row["part"]
        epoch = int(row["epoch"])
        if row is best or last or epoch in EARLY or epoch % EVERY == 0:
            yield row


def best_row(rows: Sequence[LogRow]) -> LogRow:
    """Returns the first epoch of the search with the lowest clean error."""
    return min(
        (row for row in rows if row["part"] == SEARCH), key=lambda row: float(row["clean_error"])
    )


def _line(row: LogRow, *, best: bool) -> list[str]:
    def percent(key: str) -> str:
        return f"{100 * float(row[key]):.2f}" if row[key] else ""

    return [
        PARTS[row["part"]],
        f"{row['epoch']}{' (best)' if best else ''}",
        f"{float(row['loss']):.4f}",
        f"{float(row['learning_rate']):.4f}",
        f"{float(row['momentum']):.3f}",
        percent("clean_error"),
        percent("adversarial_error"),
        percent("adversarial_confidence"),
    ]
