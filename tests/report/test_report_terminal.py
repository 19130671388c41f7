from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from gibbon.records.run import RunRecord
from gibbon.report import print_tables


def printed(record: RunRecord, *, width: int) -> str:
    stream = io.StringIO()
    print_tables(record, Console(file=stream, width=width), folder=Path("results/made-up"))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_nothing_is_wider_than_the_terminal_or_cut(record: RunRecord, width: int) -> None:
    lines = printed(record, width=width).splitlines()
    paths = [line for line in lines if line.startswith("Intervals, counts")]  # are not broken
    assert max(len(line) for line in lines if line not in paths) <= width
    assert "…" not in "".join(lines)


def test_the_most_telling_numbers_fit_on_80_columns(record: RunRecord) -> None:
    text = printed(record, width=80)
    for expected in ("−18.3", "90.0 %", "not run", "failed", "99.9 % †", "ValueError: a|b"):
        assert expected in text


def test_the_rest_is_named(record: RunRecord) -> None:
    assert "results/made-up/tables.md" in printed(record, width=80)


def test_a_wide_terminal_shows_every_column(record: RunRecord) -> None:
    text = printed(record, width=300)
    assert "Zero gradient" in text
    assert "Zero gradient" not in printed(record, width=80)


def test_importing_the_report_is_light() -> None:
    script = (
        "import sys, gibbon.report\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'matplotlib', 'tensorboard'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
