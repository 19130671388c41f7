"""Flags in every form of a report: in order, in full, escaped, and at the numbers they affect."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from made_up import made_up_flags, made_up_record, members
from rich.console import Console
from test_report_page import Element, Tree, section

from gibbon.core.threat import Epsilon
from gibbon.records.checks import CheckDone
from gibbon.records.flags import Flag
from gibbon.records.run import RunRecord
from gibbon.report import print_tables
from gibbon.report.content.chapters import report_chapters
from gibbon.report.content.parts.flag_groups import MARK, flag_groups
from gibbon.report.content.parts.layout import Table, TableCell
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.summary.headline import headline_tables
from gibbon.report.content.summary.opening import DONT_USE, opening
from gibbon.report.html.page import report_html
from gibbon.report.tensorboard.hparams import cell_runs
from gibbon.report.tensorboard.writer import write_tensorboard
from gibbon.report.text.csv import csv_files
from gibbon.report.text.github_summary import run_markdown
from gibbon.report.text.latex import report_latex
from gibbon.report.text.markdown import report_markdown, tables_markdown
from gibbon.report.text.notebook import record_html

EVIL = "<script>alert(1)</script> \x1b[31m $x$ #1 \\end{document} [a](b) _c_ ```"
SUITE_LINES = '[[attacks]]\nname = "square"\nepsilon = "0.25"'
CHECKS = (
    CheckDone(name="budgets", looked_at="5 budgets of the attacks", passed=True),
    CheckDone(name="candidates", looked_at="8 attacked cells of 3 models", passed=True),
)


def whole(*flags: Flag, accept: tuple[str, ...] = (), **parts: object) -> RunRecord:
    """Returns the made-up run without failures, with these flags."""
    record = made_up_record()
    suite = record.suite.model_copy(update={"accept": accept})
    update = {"suite": suite, "status": "done", "failures": (), "checks": CHECKS, **parts}
    return record.model_copy(update=update).with_flags(flags)


def many(count: int) -> tuple[Flag, ...]:
    """Returns flags of one kind about as many cells, each with another figure."""
    return tuple(
        Flag(
            kind="zero-gradient",
            dataset="mnist",
            model="softmax",
            attack="fgsm",
            epsilon=Epsilon.parse(f"{place + 1}/255"),
            figure=f"{place} of 300",
            sentence="the gradient is zero in every coordinate",
            suite=f'label = "square-{place}"',
        )
        for place in range(count)
    )


def printed(record: RunRecord, *, width: int = 100) -> str:
    stream = io.StringIO()
    print_tables(record, Console(file=stream, width=width), place="results/x/tables.md")
    return stream.getvalue()


def plain(text: str) -> str:
    return " ".join(text.split())


def page_of(record: RunRecord, folder: Path) -> Element:
    return Tree(report_html(record, folder)).root


@pytest.mark.parametrize("form", ["markdown", "latex", "html", "terminal", "summary", "notebook"])
def test_every_form_shows_all_parts_of_every_flag(form: str, tmp_path: Path) -> None:
    record = made_up_record()
    text = {
        "markdown": lambda: tables_markdown(record),
        "latex": lambda: report_latex(record),
        "html": lambda: page_of(record, tmp_path).words,
        "terminal": lambda: printed(record),
        "summary": lambda: run_markdown(record),
        "notebook": lambda: Tree(record_html(record)).root.words,
    }[form]()
    text = plain(text.replace(r"\char34{}", '"').replace("~\\%", " %").replace("\\|", "|"))
    text = text.replace("\\\\{}", "").replace(r"\textbar{}", "|").replace("\\[", "[")
    text = plain(text.replace("\\]", "]").replace("\\_", "_"))
    assert DONT_USE in text
    places = []
    for flag in record.flags:
        for part in (flag.kind, flag.subject, flag.sentence, flag.figure, flag.advice, flag.source):
            assert plain(part) in text, part
        for line in flag.suite.splitlines():
            assert line in text
        places.append(text.index(plain(flag.sentence)))
    assert places == sorted(places)  # serious, warning, note


def test_flags_come_first_in_documents_and_last_in_the_terminal(tmp_path: Path) -> None:
    record = made_up_record()
    for text in (report_markdown(record), tables_markdown(record), report_latex(record)):
        first = text.index("use these numbers yet")
        assert first < text.index("noise finds more errors") < text.index("Published and measured")
    header = page_of(record, tmp_path).every("header")[0]
    assert DONT_USE in header.words
    assert "weaker-attack-stronger" in header.words
    lines = printed(record).rstrip().splitlines()
    assert lines[0] == f"{DONT_USE}: 2 serious flags."
    assert lines[-5] == lines[0]
    assert [line.strip() for line in lines[-4:]] == [
        "inputs-unchanged: Check step size, gradient and random start of the attack.",
        "gibbon explain inputs-unchanged",
        "weaker-attack-stronger: Report the worst case over both, and look for masked gradients.",
        "gibbon explain weaker-attack-stronger",
    ]


def test_many_flags_of_one_kind_are_one_line_and_none_is_lost(tmp_path: Path) -> None:
    record = whole(*many(40))
    (group,) = flag_groups(record.flags)
    assert (group.count, len(group.lines), group.suite) == (40, 40, "")
    assert len(opening(record).reasons) == 1
    page = page_of(record, tmp_path)
    box = next(each for each in page.every("div") if each.attributes.get("id") == "opening")
    assert len(box.every("li")) == 1
    (folded,) = [
        each for each in page.every("details") if "flag" in each.attributes.get("class", "").split()
    ]
    assert "open" not in folded.attributes
    text = tables_markdown(record)
    assert "<details><summary>Seen 40 times</summary>" in text
    for place in range(40):
        for shown in (folded.words, text):
            assert f"({place} of 300)" in shown
            assert f'label = "square-{place}"' in shown
    terminal = printed(record)
    assert terminal.count(" of 300)") == 3
    assert "and 37 more: tables.md, run.json" in terminal


def test_one_sentence_about_many_cells_is_written_once() -> None:
    cells = [Flag(kind="zero-gradient", model=name, sentence="it is zero") for name in "abc"]
    (group,) = flag_groups([*cells, Flag(kind="zero-gradient", sentence="it is zero")])
    (line,) = group.lines
    assert line.text == "a; b; c; the whole run: it is zero"
    assert group.summary == "the input gradient is zero in every coordinate (4 times)"
    assert group.advice == cells[0].advice


def test_without_a_serious_flag_the_checks_that_passed_are_named(tmp_path: Path) -> None:
    record = whole(Flag(kind="target-only", sentence="no examples are made on it"))
    passed = "budgets (5 budgets of the attacks); candidates (8 attacked cells of 3 models)."
    assert opening(record).sentence == f"These checks passed: {passed}"
    assert opening(record).state == "passed"
    (box,) = [
        each
        for each in page_of(record, tmp_path).every("div")
        if each.attributes.get("id") == "opening"
    ]
    assert "well" in box.attributes["class"].split()
    assert passed in plain(box.words)
    for text in (tables_markdown(record), plain(printed(record)), plain(report_latex(record))):
        assert passed in text
        assert "use these numbers" not in text
    for text in (report_html(whole(), tmp_path), printed(whole()), tables_markdown(whole())):
        assert "nothing was flagged" not in text


def test_a_warning_is_no_reason_not_to_use_numbers_but_its_check_did_not_pass() -> None:
    failed = CHECKS[0].model_copy(update={"passed": False})
    record = whole(made_up_flags()[1], checks=(failed, CHECKS[1]))
    first = opening(record)
    assert first.state == "passed"
    assert "budgets" not in first.sentence
    assert first.notes == ("These checks raised flags: budgets (5 budgets of the attacks).",)
    assert opening(whole(made_up_flags()[1], checks=(failed,))).state == "unchecked"


def test_checks_that_examined_the_same_share_it() -> None:
    names = ("gradient", "repeated answers")
    examined = tuple(
        CheckDone(name=name, looked_at="48 examples of 3 models", passed=True) for name in names
    )
    said = opening(whole(checks=(*examined, CHECKS[0]))).text
    assert said == (
        "gradient, repeated answers (48 examples of 3 models); budgets (5 budgets of the attacks)."
    )


def test_a_record_without_checks_claims_none(tmp_path: Path) -> None:
    record = whole(checks=())
    assert opening(record).state == "unchecked"
    assert "No checks are recorded" in page_of(record, tmp_path).every("header")[0].words
    assert "checks passed" not in tables_markdown(record)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"failures": made_up_record().failures}, "4 cells failed"),
        ({"status": "running"}, "This run is not complete: running"),
    ],
)
def test_an_incomplete_run_is_never_green(parts: dict[str, object], words: str) -> None:
    first = opening(whole(**parts))  # type: ignore[arg-type]
    assert first.state == "incomplete"
    assert words in first.sentence


def test_accepted_flags_are_printed_as_accepted(tmp_path: Path) -> None:
    record = whole(*made_up_flags(), accept=("inputs-unchanged", "weaker-attack-stronger"))
    assert opening(record).state == "passed"
    (note,) = opening(record).notes
    assert note == (
        "Accepted flags, for which the user takes responsibility: `inputs-unchanged` (once); "
        "`weaker-attack-stronger` (once)."
    )
    for text in (
        tables_markdown(record),
        plain(printed(record)),
        report_latex(record),
        page_of(record, tmp_path).words,
    ):
        assert "accepted: the user takes responsibility" in text
        assert "use these numbers yet" not in text
        assert MARK in text or r"\ddag{}" in text  # the numbers stay marked
    assert "2 accepted" in page_of(record, tmp_path).every("header")[0].words
    half = whole(*made_up_flags(), accept=("inputs-unchanged",))
    assert [each.kind for each in opening(half).reasons] == ["weaker-attack-stronger"]


def marked(table: Table) -> dict[tuple[str, ...], set[str]]:
    """Returns the headers of the marked numbers of each row, by the row's words."""
    found: dict[tuple[str, ...], set[str]] = {}
    for row in table.rows:
        words = tuple(cell.text for cell in row[:4] if cell.value is None)
        heads = {
            column.header for column, cell in zip(table.columns, row, strict=True) if cell.mark
        }
        found[words] = found.get(words, set()) | heads
    return found


def test_the_headline_marks_numbers_with_serious_flags_and_no_others() -> None:
    table, _ = headline_tables(RunLookup(made_up_record()))
    places = {column.header: at for at, column in enumerate(table.columns)}
    threat = places["Threat"]
    found = {row[0].text: row for row in table.rows if "not clipped" in row[threat].text}
    maxout = {header: found["maxout"][at] for header, at in places.items()}
    assert maxout["Robust accuracy"].marked == "8.8 % ‡"
    assert maxout["Worst-case error"].marked == "91.2 % ‡"
    assert maxout["Adversarial error"].marked == "89.4 % ‡"
    assert not maxout["Clean error"].mark  # an attack says nothing about the clean error
    assert not any(cell.mark for cell in found["softmax"])
    assert found["maxout"][-1].text == "2 serious"


def test_flags_about_answers_mark_the_clean_error_and_flags_about_gradients_do_not() -> None:
    about = {"dataset": "mnist", "model": "softmax", "sentence": "seen"}
    gradient, answers = (
        whole(Flag(kind=kind, **about)) for kind in ("gradient-mismatch", "preprocessing")
    )
    for record, clean in ((gradient, False), (answers, True)):
        table, _ = headline_tables(RunLookup(record))
        row = next(row for row in table.rows if row[0].text == "softmax")
        places = {column.header: at for at, column in enumerate(table.columns)}
        assert bool(row[places["Clean error"]].mark) is clean
        assert row[places["Worst-case error"]].mark == MARK
        assert row[places["Robust accuracy"]].mark == MARK
    assert "gradient-mismatch" in gradient.evaluations[0].flags


def test_every_kind_of_table_marks_its_numbers() -> None:
    flag = Flag(kind="zero-gradient", dataset="mnist", model="softmax", sentence="it is zero")
    listed = tuple(members("softmax", (700, 200, 0)))
    record = whole(flag, members=listed)
    marks = {
        chapter.title: [
            (table.title, cell.marked)
            for table in chapter.tables
            for row in table.rows
            for cell in row
            if cell.mark
        ]
        for chapter in report_chapters(record)
        if chapter.tables
    }
    missing = {title for title, found in marks.items() if not found}
    assert missing == set()
    for chapter in report_chapters(record):
        for table in chapter.tables:
            shown = any(cell.mark for row in table.rows for cell in row)
            noted = [note for note in table.notes if note.startswith(f"{MARK} Serious")]
            assert len(noted) == shown
            assert not shown or "`zero-gradient`" in noted[0]


def test_words_and_dashes_are_never_marked() -> None:
    flags = made_up_flags()
    assert TableCell("failed", kind="failed").flagged(flags).mark == ""
    assert TableCell("–").flagged(flags).mark == ""
    assert TableCell("1.0 %", "[0–2]", value=1.0).flagged(flags).marked == "1.0 % ‡"
    assert str(TableCell("1.0 %", "[0–2]", value=1.0).flagged(flags)) == "1.0 % ‡ [0–2]"


def test_a_marked_number_keeps_its_mark_in_latex_and_in_the_terminal() -> None:
    record = made_up_record()
    assert r"89.4~\% \ddag{}" in report_latex(record)
    assert r"\ddag{} Serious, the number must not be used" in report_latex(record)
    assert "89.4 % ‡" in printed(record)
    assert "‡ A serious flag affects this number." in printed(record)


def test_marks_and_kinds_link_to_the_flag_and_its_page(tmp_path: Path) -> None:
    page = page_of(made_up_record(), tmp_path)
    links = [each.attributes["href"] for each in section(page, "headline").every("a")]
    assert links.count("#flag-inputs-unchanged") >= 3
    assert "#flags" in links
    hrefs = {each.attributes["href"] for each in page.every("a")}
    named = {each.attributes.get("id"): each for each in page.every()}
    for flag in made_up_flags():
        assert {f"#flag-{flag.kind}", f"#about-{flag.kind}"} <= hrefs
        assert f"flag-{flag.kind}" in named
    about = [each for each in page.every("details") if each.attributes.get("class") == "about"]
    assert len(about) == 4
    assert all("Why it matters" in each.words for each in about)


def test_a_kind_in_two_severities_is_named_once(tmp_path: Path) -> None:
    note = Flag(kind="wide-budget", severity="note", sentence="a check of the attack")
    page = page_of(whole(*made_up_flags(), note), tmp_path)
    ids = [each.attributes["id"] for each in page.every() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    assert page.words.count("What wide-budget means") == 2


def test_all_csv_files_of_cells_have_the_kinds() -> None:
    record = whole(*made_up_flags(), members=tuple(members("maxout", (850, 0, 50))))
    for name, text in csv_files(record).items():
        rows = list(csv.DictReader(io.StringIO(text)))
        assert rows, name
        assert all("flags" in row for row in rows), name
        assert name == "evaluations.csv" or text.partition("\n")[0].endswith(",flags")
    (row,) = [
        row
        for row in csv.DictReader(io.StringIO(csv_files(record)["evaluations.csv"]))
        if (row["model"], row["attack"], row["epsilon"]) == ("maxout", "fgsm", "0.25")
    ]
    assert row["flags"] == "inputs-unchanged;weaker-attack-stronger"


def test_text_of_flags_is_never_markup(tmp_path: Path) -> None:
    flag = Flag(
        kind="zero-gradient", model="softmax", figure=EVIL, sentence=EVIL, advice=EVIL,
        suite=f"{EVIL}\n````\n</pre>", source=EVIL,
    )  # fmt: skip
    record = whole(flag, checks=(CheckDone(name=EVIL, looked_at=EVIL, passed=True),))
    page = report_html(record, tmp_path)
    assert "<script>alert" not in page
    assert len(Tree(page).root.every("script")) == 1
    assert "<script>" not in record_html(record).replace("&lt;script&gt;", "")
    assert "\x1b" not in printed(record) + page + tables_markdown(record) + report_latex(record)
    document = report_latex(record)
    assert document.count(r"\end{document}") == 1
    assert document.isascii()
    fenced = re.sub(r"^(`{3,})toml\n.*?^\1$", "", tables_markdown(record), flags=re.DOTALL | re.M)
    assert "</pre>" not in fenced
    assert not re.search(r"(?<!\\)(<script|\[a\]\(|\$x|_c_)", re.sub(r"`[^`\n]+`", "", fenced))


def test_tensorboard_shows_flags_of_cells_and_curves(tmp_path: Path) -> None:
    record = made_up_record()
    runs = cell_runs(record, 0.0)
    write_tensorboard(record, tmp_path / "tensorboard")
    files = sorted((tmp_path / "tensorboard").rglob("events.out.*"))
    content = {file.parent.name: file.read_bytes() for file in files}
    assert len(runs) > 2
    assert b"0. Flags and checks" in content["_tables"]
    assert DONT_USE.encode() in content["_tables"]
    assert b"Serious flags: inputs-unchanged, weaker-attack-stronger" in content["maxout"]
    assert b"Serious flags" not in content["softmax"]
    cell = next(file for file in files if "maxout/fgsm/0.25" in file.as_posix())
    assert b"inputs-unchanged;weaker-attack-stronger" in cell.read_bytes()
