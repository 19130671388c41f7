"""Makes the tables of docs/performance.md from the record of a run.

``python tests/performance/page.py docs/performance.md`` writes the regions anew, which look like
``<!-- gibbon:speed fgsm ../results/performance/record.json -->`` (see `tools.docs.regenerate`);
``gibbon:machine`` says where it was measured, ``gibbon:missed`` which bars were missed, and
``gibbon:counts`` which operations were counted (`counts`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from counts import US, Counts
from ledger import Machine, Record, Row, Spread

from gibbon.core.errors import SpecError
from gibbon.core.files import write_atomically
from tools.docs.regenerate import regenerate
from tools.records.workers import workers_table

HEAD = (
    "| by | time | times ours | bar | times the passes | bar | error |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def page(text: str, *, folder: Path) -> str:
    """Returns the page with its regions made from the records below ``folder``."""
    makers = {
        "speed": _tables,
        "machine": _machine,
        "missed": _missed,
        "counts": _counts,
        "workers": _workers,
    }
    return regenerate(text, folder=folder, makers=makers)


def _tables(arguments: list[str], folder: Path) -> str:
    if len(arguments) != 2:
        raise SpecError("expected <!-- gibbon:speed SECTION RECORD -->")
    section, path = arguments
    rows = [row for row in Record.read(folder / path).rows if row.section == section]
    if not rows:
        return "Not measured in this run."
    blocks = []
    for work, group in groupby(rows, key=lambda row: row.work):
        lines = [f"**{work}**", "", *HEAD, *(_line(row) for row in group)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _line(row: Row) -> str:
    who = f"**{row.who}**" if row.ours else row.who
    note = f" ({row.note})" if row.note else ""
    bar = f"≥ {row.bar:.2f}" if row.bar is not None else ""
    floor_bar = f"≤ {row.floor_bar:.2f}" if row.floor_bar is not None else ""
    marked = " **missed**" if row.missed else ""
    cells = [
        f"{who}{note}",
        _seconds(row.seconds),
        _spread(row.times_ours),
        bar + (marked if bar else ""),
        _spread(row.times_floor),
        floor_bar + (marked if floor_bar else ""),
        f"{row.errors[-1]:.1%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _machine(arguments: list[str], folder: Path) -> str:
    (path,) = arguments
    record = Record.read(folder / path)
    rounds = [row.rounds for row in record.rows]
    played = f"{min(rounds)} to {max(rounds)} rounds each"
    return "\n".join(f"- {line}" for line in [*_described(record.machine), played])


def _described(machine: Machine) -> list[str]:
    present = ", ".join(f"{name} {release}" for name, release in machine.peers.items() if release)
    missing = [name for name, release in machine.peers.items() if release is None]
    return [
        f"{machine.processor}, {machine.processors} processors, {machine.vector_instructions}; "
        f"{machine.threads} thread(s); {machine.system}",
        f"Python {machine.python}, torch {machine.torch}",
        present + (f"; not installed: {', '.join(missing)}" if missing else ""),
        f"measured on {machine.date}, by "
        + ("the clock on the wall" if machine.clock == "wall" else "the processor's time"),
    ]


def _workers(arguments: list[str], folder: Path) -> str:
    (path,) = arguments
    return workers_table(folder / path)


def _missed(arguments: list[str], folder: Path) -> str:
    (path,) = arguments
    missed = [row for row in Record.read(folder / path).rows if row.missed]
    if not missed:
        return "Every bar is met."
    return "\n".join(f"- {row.work}: {_shortfall(row)}" for row in missed)


def _counts(arguments: list[str], folder: Path) -> str:
    (path,) = arguments
    record = Counts.model_validate_json((folder / path).read_text(encoding="utf-8"))
    peers = ", ".join(f"{name} {release}" for name, release in record.peers.items())
    lines = [
        f"`{record.model}`, {record.examples} examples, torch {record.torch}; {peers}.",
        "",
        "| work | by | operations | of these, the model's passes | reads back |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in record.rows:
        who = f"**{row.who}**" if row.who == US else row.who
        numbers = " | ".join(f"{each:g}" for each in (row.launches, row.passes, row.reads))
        lines.append(f"| {row.work} | {who} | {numbers} |")
    return "\n".join(lines)


def _shortfall(row: Row) -> str:
    if row.bar is not None and row.times_ours is not None:
        return f"{row.who} takes {row.times_ours.median:.2f} times as long, not {row.bar:.2f}"
    if row.times_floor is None or row.floor_bar is None:
        raise SpecError(f"{row.work}: {row.who} misses no bar")
    return f"{row.times_floor.median:.2f} times the passes, not {row.floor_bar:.2f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def main(arguments: Sequence[str]) -> int:
    for name in arguments:
        file = Path(name)
        text = file.read_text(encoding="utf-8")
        anew = page(text, folder=file.parent)
        if anew != text:
            write_atomically(file, anew)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
