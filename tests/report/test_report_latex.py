"""LaTeX: every text survives, and what is written compiles alone and within a paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_flags, made_up_record, searching_record

from gibbon.records.flags import Flag
from gibbon.records.run import RunRecord
from gibbon.report.content.parts.layout import Column, Table, TableCell, cells
from gibbon.report.text.latex import escape, report_latex, table_latex

ROOT = Path(__file__).parents[2]
PAPER = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{tables}
After it.
\end{document}
"""


@given(st.text())
def test_no_character_has_a_meaning_of_its_own(text: str) -> None:
    escaped = escape(text)
    assert escaped.isascii()
    assert "\n" not in escaped
    # Without what escapes stand for, nothing is left that LaTeX would act on.
    plain = re.sub(
        r"\\[A-Za-z]+(\{(\\[ij]|[A-Za-z]?)\})?|\\[#$%&_{}`'^~=.\"](\{[^}]*\})?", "", escaped
    )
    plain = re.sub(r"\$(-|\^2|\\[|]|)\$|~|\{\}|''|``", "", plain)
    assert not re.search(r"[\\%&#_{}$^]", plain), (text, escaped)


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("50 % & more_of #1", r"50~\% \& more\_of \#1"),
        (r"a\b{c}^~", r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{}"),
        ("−0.10 – é ñ ł", r"$-$0.10 -- \'{e} \~{n} \l{}"),
        ("two\nlines", "two lines"),
        ("犬", "?"),
    ],
)
def test_escaping(raw: str, escaped: str) -> None:
    assert escape(raw) == escaped


def test_a_wide_table_gives_up_columns_and_details_and_never_its_numbers() -> None:
    columns = tuple(Column(f"Column {place}", level=0) for place in range(9))
    row = tuple(TableCell("99.9 %", "[99.8–100.0]") for _ in columns)
    text = table_latex(Table("t", columns, (row,)), caption="c", label="l")
    assert text.count(r"99.9~\%") == 9
    assert "[99.8" not in text


def test_a_matrix_too_wide_for_a_line_is_written_in_parts() -> None:
    names = [f"model-{place}" for place in range(20)]
    columns = (Column("Source", "left"), *(Column(name) for name in names))
    rows = tuple(cells(name, *(f"{place}.0 %" for place in range(20))) for name in names)
    text = table_latex(Table("t", columns, rows), caption="c", label="l")
    parts = text.count(r"\begin{tabular}")
    assert parts > 1
    assert text.count("Source &") == parts
    for place in range(20):
        assert text.count(f" {place}.0~\\%") == len(names)
    assert f"(part {parts} of {parts})" in text


def test_words_among_numbers_are_broken_into_lines() -> None:
    words = "panda 57.7 %, then gibbon 99.3 %; alone nematode 8.2 %"
    columns = (Column("Model", "left"), Column("Published"))
    text = table_latex(
        Table("t", columns, (cells("a", words), cells("b", "1.0 %"))), caption="c", label="l"
    )
    broken = re.findall(r"\\shortstack\[r\]\{(.*?)\} \\\\\n", text)
    assert len(broken) == 1
    lines = broken[0].split(r" \\ ")
    assert len(lines) > 1
    assert " ".join(lines) == escape(words)
    assert text.count(r"\begin{tabular}") == 1


def test_every_part_of_a_wide_table_says_what_its_rows_are() -> None:
    columns = (
        *(Column("§"), Column("Model", "left"), Column("Measure", "left")),
        *(Column(f"Column {place}") for place in range(20)),
    )
    row = cells("4", "maxout", "same wrong class in both targets", *["100.0 %"] * 20)
    text = table_latex(Table("t", columns, (row,)), caption="c", label="l")
    parts = text.count(r"\toprule")
    assert parts > 1
    assert text.count(r"\S{} & Model & Measure & ") == text.count("4 & maxout & same") == parts


def test_a_table_a_little_too_wide_is_written_smaller_and_keeps_its_columns() -> None:
    columns = (Column("Model", "left"), *(Column(f"Column {place}") for place in range(9)))
    row = cells("maxout-noise-uniform", *["100.0 %"] * 8, "99.9999 %")
    text = table_latex(Table("t", columns, (row,)), caption="c", label="l")
    assert r"\centering\scriptsize" in text
    assert text.count(r"\begin{tabular}") == 1
    short = table_latex(Table("t", columns[:3], (row[:3],)), caption="c", label="l")
    assert r"\centering\footnotesize" in short


def test_every_page_of_the_papers_table_has_its_verdicts() -> None:
    text = report_latex(RunRecord.read(ROOT / "results" / "goodfellow2015"))
    pages = [part for part in text.split(r"\end{table}") if "Published and measured." in part]
    for page in pages:
        assert re.search(r"\\S\{\} & Model & Measure & Published .* Verdict & Note", page)
    assert 1 <= len(pages) <= 2
    assert "(fgsm-naive)" in pages[0]


def test_a_row_that_begins_with_a_bracket_is_no_option() -> None:
    table = Table("t", (Column("Interval"),), (cells("[1–2]"), cells("[3–4]")))
    text = table_latex(table, caption="c", label="l")
    assert "{}[1--2] \\\\" in text
    assert "{}[3--4] \\\\" in text


def test_a_long_table_is_written_in_parts() -> None:
    rows = tuple(cells(f"row {place}") for place in range(100))
    text = table_latex(Table("t", (Column("C", "left"),), rows), caption="c", label="l")
    assert text.count(r"\begin{tabular}") == 3
    assert text.count(r"\toprule") == 3
    assert "(part 3 of 3)" in text
    assert re.findall(r"\\label\{(.*?)\}", text) == ["l", "l-2", "l-3"]


def test_lines_of_cells_count_when_a_table_is_divided_among_pages() -> None:
    words = " ".join(["word"] * 30)  # four lines
    rows = tuple(cells(f"row {place}", words) for place in range(30))
    columns = (Column("C", "left"), Column("Words", "left"))
    text = table_latex(Table("t", columns, rows), caption="c", label="l")
    for page in text.split(r"\end{table}")[:-1]:
        assert page.count(r" \\ word") + page.count("row ") <= 48
    assert text.count("row ") == 30
    assert "(part 3 of 3)" in text


@pytest.mark.parametrize("notes", [3, 90])
def test_notes_for_which_a_page_has_no_room_follow_the_table(notes: int) -> None:
    words = tuple(f"note number {place}" for place in range(notes))
    table = Table("t", (Column("C", "left"),), (cells("one row"),), notes=words)
    inside, after = table_latex(table, caption="c", label="l").split(r"\end{table}")
    for place in range(notes):
        assert f"note number {place}" in (inside if notes == 3 else after)
    assert (inside + after).count("\\\\\n") >= notes - 1  # each on a line of its own
    assert (r"\ref{l}" in after) == (notes == 90)


def test_labels_are_told_apart_and_failures_are_there() -> None:
    text = report_latex(made_up_record())
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels)) > 10
    assert text.index("Failed cells") < text.index("Headline")
    assert "& failed &" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("paper", [False, True], ids=["alone", "in a paper"])
def test_it_compiles(tmp_path: Path, paper: bool) -> None:
    record = made_up_record()
    text = "100 % of a_b & $x^2$ #1 {~} \\end{document} <é>"
    flag = Flag(kind="zero-gradient", sentence=text, advice=text, suite=f"[[{text}]]", source=text)
    evil = record.with_flags([flag, *made_up_flags()])
    for each in (evil, searching_record()):
        (tmp_path / "tables.tex").write_text(report_latex(each), encoding="ascii")
        (tmp_path / "paper.tex").write_text(PAPER)
        name = "paper" if paper else "tables"
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 10_000
