"""Measures how much faster a suite is with two workers, and what Ray costs, and keeps a record.

Each way of running the suite is measured in a process of its own, with one thread a worker::

    OMP_NUM_THREADS=1 python -m tools.records.workers [--clock processor]

On a busy machine the clock of the processor is steadier than that on the wall: the time of a run is
then that of its own process and of its slowest worker, one after the other, as on a machine that
has a core for each.  The record, `results/workers/record.json`, makes the table of
`docs/performance.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from tools.pipe_table import pipe_table
from tools.records.machine import CLOCKS, ROOT, processor

WHOLE: Final = "one process"
RECORD: Final = ROOT / "results" / "workers" / "record.json"
EXAMPLES: Final = 10_000
WORDS: Final = f"PGD with 40 steps at two ε, two maxout networks, {EXAMPLES:,} examples of MNIST"
SUITE: Final[dict[str, Any]] = {
    "name": "workers",
    "dataset": "mnist",
    "models": ["maxout", "maxout-adv"],
    "attacks": [{"name": "pgd", "epsilon": ["0.1", "0.25"], "steps": 40}],
}
WAYS: Final[dict[str, dict[str, Any]]] = {
    WHOLE: {},
    "two worker processes": {"workers": 2},
    "Ray, one worker": {"executor": "ray", "workers": 1},
    "Ray, two workers": {"executor": "ray", "workers": 2},
}
# Of the time of one process: two workers are at least 1.8 times as fast, Ray costs at most a tenth.
BARS: Final = {"two worker processes": 1 / 1.8, "Ray, one worker": 1.1, "Ray, two workers": 1 / 1.8}
TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
OF_WORKERS: Final = ("forkserver", "ray::_Actor", "ray::IDLE")  # in their command lines


def measured(way: str, clock: str, examples: int) -> float:
    """Returns the seconds of a run."""
    # Not above: each worker imports this module, too, as it does the script of a user.
    from gibbon.report import write_report
    from gibbon.runner.run_suite import run_suite
    from gibbon.runner.settings import RunSettings
    from gibbon.specs.suite import Suite

    with tempfile.TemporaryDirectory() as folder, _noting_workers() as spent:
        started = CLOCKS[clock]()
        run_suite(
            Suite.model_validate(SUITE),
            Path(folder) / "run",
            settings=RunSettings(device="cpu", limit=examples, **WAYS[way]),
            publish=write_report,
        )
        seconds = CLOCKS[clock]() - started
    return seconds + (max(spent, default=0.0) if clock == "processor" else 0.0)


@contextmanager
def _noting_workers() -> Iterator[list[float]]:
    """Yields the processor's seconds of each worker, which are noted after each job."""
    from gibbon.runner.executors.dispatch import Dispatcher

    spent: list[float] = []
    results = Dispatcher.results

    def noted(self: Dispatcher, left: Any) -> Iterator[Any]:
        yield from results(self, left)
        spent[:] = _seconds_of_workers()

    Dispatcher.results = noted  # type: ignore[method-assign, assignment]
    try:
        yield spent
    finally:
        Dispatcher.results = results  # type: ignore[method-assign]


def _seconds_of_workers() -> list[float]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = place.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = place.joinpath("stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if any(name in command for name in OF_WORKERS) and _is_ours(int(fields[1])):
            found.append((int(fields[11]) + int(fields[12])) / TICKS)
    return found


def _is_ours(parent: int) -> bool:
    """Returns whether a process, or one that it descends from, is this one."""
    while parent > 1:
        if parent == os.getpid():
            return True
        try:
            text = Path(f"/proc/{parent}/stat").read_text()
        except OSError:
            return False
        parent = int(text.rpartition(")")[2].split()[1])
    return False


def workers_table(record: Path) -> str:
    """Returns the table of a record in markdown, with the machine that it was made on."""
    content = json.loads(record.read_text())
    machine, rows = content["machine"], content["rows"]
    alone = rows[WHOLE]
    lines = [
        [
            way,
            f"{seconds:.1f}",
            f"{alone / seconds:.2f}",
            "" if way not in BARS else f"≥ {1 / BARS[way]:.2f}",
        ]
        for way, seconds in rows.items()
    ]
    table = pipe_table(lines, ["way", "seconds", "times as fast as one process", "bar"])
    clock = (
        "the clock on the wall"
        if machine["clock"] == "wall"
        else "the processor's time of the run's process and of its slowest worker, added"
    )
    return (
        f"{table}\n\n{content['words']}, on {machine['date']}: {machine['processor']}, one thread "
        f"each; torch {machine['torch']}; {clock}."
    )


def main() -> int:
    """Measures all ways, and writes the record; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"one of {', '.join(WAYS)}")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    given = parser.parse_args()
    rows = json.loads(given.record.read_text())["rows"] if given.record.exists() else {}
    context = multiprocessing.get_context("spawn")
    for way in given.ways or WAYS:
        with ProcessPoolExecutor(1, mp_context=context) as pool:  # it may have children
            rows[way] = pool.submit(measured, way, given.clock, given.examples).result()
        sys.stdout.write(f"{way}: {rows[way]:.1f} s\n")
        content = {
            "machine": {
                "date": datetime.now(UTC).date().isoformat(),
                "clock": given.clock,
                "processor": processor(),
                "torch": torch.__version__,
            },
            "words": WORDS,
            "rows": {each: rows[each] for each in WAYS if each in rows},
        }
        given.record.parent.mkdir(parents=True, exist_ok=True)
        given.record.write_text(json.dumps(content, indent=1) + "\n")
    alone = rows.get(WHOLE, math.inf)
    missed = [way for way, bar in BARS.items() if rows.get(way, 0) > bar * alone]
    if missed:
        sys.stdout.write(f"missed: {', '.join(missed)}\n")
    return int(bool(missed))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
