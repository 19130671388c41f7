"""Benchmarks run with ``--benchmark-only`` alone; at the end a table of ratios is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ratios import ROWS, table


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves this folder out of an ordinary run of the tests."""
    if not config.getoption("benchmark_only", default=False):
        return True
    return None


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what each piece of work took, as a multiple of the passes that it needs."""
    if not ROWS:
        return
    terminalreporter.section(f"times the passes needed, {torch.get_num_threads()} thread(s)")
    for line in table(ROWS):
        terminalreporter.write_line(line)
