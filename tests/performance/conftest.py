"""Work is timed by `make perf` alone, which passes ``--speed``; at the end a table is printed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from ledger import Ledger, Machine, Record, text_table

LEDGER = pytest.StashKey[Ledger]()
STARTED = pytest.StashKey[float]()
TIMED = "test_speed_of_"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("speed")
    group.addoption("--speed", action="store_true", help="time our work beside other libraries'")
    group.addoption(
        "--effort", type=float, default=1.0, help="multiplies the time given to each comparison"
    )
    group.addoption(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="time on the wall, or the processor's, which is steadier on a busy machine where "
        "OMP_NUM_THREADS is 1",
    )
    group.addoption("--record", type=Path, help="write what was found to this file")


def pytest_configure(config: pytest.Config) -> None:
    clock = config.getoption("clock", default="wall")
    config.stash[LEDGER] = Ledger(
        effort=config.getoption("effort", default=1.0), clock=CLOCKS[clock]
    )
    config.stash[STARTED] = time.monotonic()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves what is timed out of an ordinary run of the tests."""
    timed = collection_path.name.startswith(TIMED)
    return True if timed and not config.getoption("speed", default=False) else None


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return request.config.stash[LEDGER]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints what everyone took, beside ours and beside the passes needed; writes the record."""
    rows = config.stash[LEDGER].rows
    if not rows:
        return
    machine = Machine.this(clock=config.getoption("clock"))
    took = time.monotonic() - config.stash[STARTED]
    terminalreporter.section(f"speed, {torch.get_num_threads()} thread(s), {took:.0f} s")
    for line in text_table(rows):
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    missing = [name for name, release in machine.peers.items() if release is None]
    if missing:
        terminalreporter.write_line(f"not installed, so not compared: {', '.join(missing)}")
    missed = sum(row.missed for row in rows)
    terminalreporter.write_line(f"bars missed: {missed}")
    path = config.getoption("record", default=None)
    if path is not None:
        Record(machine=machine, rows=tuple(rows)).write(path)
        terminalreporter.write_line(f"record: {path}")
