"""Timing work against the bare passes that it needs, and the table of what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The aim: what is not a pass of the model takes at most a tenth of the passes.
AIM = 1.10


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds are medians of repetitions that took turns."""

    work: str
    who: str
    batch_size: int
    seconds: float
    floor: float
    error: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor


ROWS: list[Row] = []


def compare(
    benchmark: Any,
    work: Callable[[], float],
    floor: Callable[[], object],
    *,
    name: str,
    who: str,
    batch_size: int,
    rounds: int,
) -> Row:
    """Times work and floor in turns, so that a busy machine slows both; notes and returns the row.

    ``work`` returns the adversarial error that it found.
    """
    floors: list[float] = []

    def time_the_floor() -> None:
        started = time.perf_counter()
        floor()
        floors.append(time.perf_counter() - started)

    benchmark.group = f"{name}, batch {batch_size}"
    time_the_floor()
    floors.clear()
    error = benchmark.pedantic(work, setup=time_the_floor, rounds=rounds, warmup_rounds=1)
    row = Row(name, who, batch_size, benchmark.stats.stats.median, statistics.median(floors), error)
    benchmark.extra_info.update(floor=row.floor, ratio=row.ratio, error=row.error)
    ROWS.append(row)
    return row


def table(rows: list[Row]) -> list[str]:
    """Returns the rows as lines of text."""
    head = (
        f"{'work':<26} {'by':<14} {'batch':>6} {'ms':>9} {'floor ms':>9} {'ratio':>7} {'error':>8}"
    )
    lines = [head, "-" * len(head)]
    for row in sorted(rows, key=lambda each: (each.work, each.batch_size, each.ratio)):
        mark = "  aim 1.10 missed" if row.who.startswith("gibbon") and row.ratio > AIM else ""
        lines.append(
            f"{row.work:<26} {row.who:<14} {row.batch_size:>6} {1e3 * row.seconds:>9.1f} "
            f"{1e3 * row.floor:>9.1f} {row.ratio:>7.3f} {row.error:>8.2%}{mark}"
        )
    return lines
