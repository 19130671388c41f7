from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from gibbon.records.run import RunRecord
from gibbon.report import print_tables
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.claims import CLAIMS
from gibbon.report.content.published_numbers.published import PAPER
from gibbon.report.content.tables.evaluations import EVALUATIONS
from gibbon.report.text.terminal import print_places, print_table


def printed(record: RunRecord, *, width: int) -> str:
    stream = io.StringIO()
    print_tables(record, Console(file=stream, width=width), place="results/made-up/tables.md")
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_nothing_is_wider_than_the_terminal_or_cut(record: RunRecord, width: int) -> None:
    lines = printed(record, width=width).splitlines()
    paths = [line for line in lines if line.startswith("Intervals, counts")]  # are not broken
    assert max(len(line) for line in lines if line not in paths) <= width
    assert "…" not in "".join(lines)


def test_the_most_telling_numbers_fit_on_80_columns(record: RunRecord) -> None:
    text = printed(record, width=80)
    for expected in ("−18.3", "10.6 % ‡ [8.8–12.7]  1,000", "not run", "failed", "99.9 % †"):
        assert expected in text
    assert "ValueError: a|b" in text


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 120, 160])
def test_columns_are_left_out_one_by_one_and_no_word_is_broken(
    record: RunRecord, width: int
) -> None:
    evaluations = EVALUATIONS.chapter(RunLookup(record)).tables[0]
    claims = CLAIMS.chapter(RunLookup(record)).tables[0]
    for table in (evaluations, claims):
        stream = io.StringIO()
        print_table(table, Console(file=stream, width=width))
        words = {word for row in table.rows for cell in row for word in str(cell).split()}
        words |= {word for column in table.columns for word in column.header.split()}
        words |= set(table.title.split())
        for word in stream.getvalue().split():
            assert word.strip("─:;,") in {"", *(each.strip(":;,") for each in words)}, word


def test_more_columns_fit_into_more_room_and_the_figure_stays(record: RunRecord) -> None:
    table = EVALUATIONS.chapter(RunLookup(record)).tables[0]
    shown = []
    for width in range(80, 220, 7):
        stream = io.StringIO()
        print_table(table, Console(file=stream, width=width))
        text = stream.getvalue()
        assert "10.6 % ‡ [8.8–12.7]  1,000" in text
        shown.append(text.count("%"))
    assert shown == sorted(shown)
    assert len(set(shown)) > 4  # one column at a time


def test_a_table_without_room_is_stacked(record: RunRecord) -> None:
    stream = io.StringIO()
    table = PAPER.chapter(RunLookup(record)).tables[0]
    print_table(table, Console(file=stream, width=50))
    lines = stream.getvalue().splitlines()
    assert lines[1] == "§ 4, softmax, adversarial error"
    assert lines[2].startswith("  Published: 99.9 %; Measured (fgsm): ")
    assert max(map(len, lines)) <= 50


def test_the_files_of_a_run_are_named_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "tables.md").touch()
    (tmp_path / "run.json").touch()
    stream = io.StringIO()
    print_places(str(tmp_path), Console(file=stream, width=80), folder=tmp_path)
    first, files, *rest = stream.getvalue().splitlines()
    assert first == f"Everything is in {tmp_path}"
    assert files == "  tables.md, run.json"
    assert f"    gibbon report {tmp_path} --latex --table main" in rest
    print_places(str(tmp_path), Console(file=stream, width=80), attacked=False)
    assert stream.getvalue().count("--latex") == 1


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
