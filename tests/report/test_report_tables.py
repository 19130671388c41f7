from __future__ import annotations

import pytest

from gibbon.metrics.intervals import wilson_interval
from gibbon.records.run import RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.parts.layout import Column, Table, TableCell
from gibbon.report.content.parts.lookup import Measured, RunLookup
from gibbon.report.content.parts.number_format import as_published, interval, percent, points
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.tables.error_curves import curve_tables
from gibbon.report.content.tables.evaluations import evaluation_tables
from gibbon.report.content.tables.failures_and_flags import FAILURES_AND_FLAGS
from gibbon.report.content.tables.transfer import agreement_tables, transfer_tables
from gibbon.report.content.tables.worst_case import worst_case_tables
from gibbon.specs.decoding import shipped_suites


def by_header(table: Table) -> list[dict[str, TableCell]]:
    """Returns rows by header; of headers that come twice, the first."""
    return [
        {
            column.header: cell
            for column, cell in reversed(list(zip(table.columns, row, strict=True)))
        }
        for row in table.rows
    ]


def paper(record: RunRecord) -> list[dict[str, TableCell]]:
    table = paper_table(RunLookup(record))
    assert table is not None
    return by_header(table)


def test_one_line_a_published_row_in_its_order(record: RunRecord) -> None:
    lines = paper(record)
    assert [line["Published"].text for line in lines] == [
        as_published(row.value or 0.0) for row in record.suite.published
    ]


def test_each_attack_of_a_row_has_its_own_measured_column(record: RunRecord) -> None:
    confidence = paper(record)[1]
    assert confidence["Measured (fgsm)"].text == "79.3 %"
    assert confidence["fgsm-naive"].text == "90.0 %"
    assert confidence["Δ points"].text == "−18.3"
    assert confidence["Count"].text == "mean of 894"


def test_a_failed_cell_is_failed_and_a_model_that_is_not_there_is_not_run(
    record: RunRecord,
) -> None:
    words = {
        (line["Model"].text, line["Measure"].text): line["Measured (fgsm)"].text
        for line in paper(record)
    }
    assert words["broken", "adversarial error"] == "failed"
    assert words["broken → maxout", "transfer error"] == "failed"
    assert words["rbf", "adversarial error"] == "not run"


def test_published_measures_are_looked_up_where_they_are(record: RunRecord) -> None:
    found = {
        (line["Model"].text, line["Measure"].text): (
            line["Measured (fgsm)"].text,
            line["Count"].text,
        )
        for line in paper(record)
    }
    assert found["logistic", "clean error"] == ("1.60 %", "16 / 1,000")
    assert found["softmax", "mean confidence, clean"] == ("61.0 %", "mean of 1,000")
    assert found["maxout → softmax", "transfer error"] == ("99.9 %", "999 / 1,000")
    assert found["maxout → softmax", "same wrong class, given source misclassified"] == (
        "16.7 %",
        "149 / 894",
    )
    assert found["maxout → softmax", "same wrong class, given both misclassified"] == (
        "33.3 %",
        "149 / 447",
    )
    both = "same wrong class in both targets, given both misclassified"
    assert found["softmax → maxout, softmax", both] == ("53.3 %", "240 / 450")


def test_the_same_note_is_printed_once(record: RunRecord) -> None:
    table = paper_table(RunLookup(record))
    assert table is not None
    assert [note for note in table.notes if "another size" in note] == [
        "(1) published for another size"
    ]


def test_a_suite_without_published_rows_has_no_paper_table(record: RunRecord) -> None:
    suite = record.suite.model_copy(update={"published": ()})
    assert paper_table(RunLookup(record.model_copy(update={"suite": suite}))) is None


def test_failed_cells_are_nowhere_a_number(record: RunRecord) -> None:
    results = RunLookup(record)
    tables = [*evaluation_tables(results), *curve_tables(results), *transfer_tables(results)]
    for table in tables:
        for row in table.rows:
            if row[0].text == "broken":
                numbers = [cell.text for cell in row[1:] if "%" in cell.text]
                assert numbers == []
                assert any(cell.text in ("failed", "not run") for cell in row)


def test_a_rate_of_no_examples_is_a_dash(record: RunRecord) -> None:
    logistic = by_header(list(evaluation_tables(RunLookup(record)))[1])[1]
    assert logistic["Adversarial error"].text == "0.0 %"
    assert logistic["Confidence on misclassified"].text == "–"


def test_error_against_epsilon_begins_with_the_clean_error(record: RunRecord) -> None:
    fgsm = next(iter(curve_tables(RunLookup(record))))
    assert [column.header for column in fgsm.columns][2:] == [
        "ε = 0 (clean)",
        "ε = 8/255",
        "ε = 0.25",
    ]
    assert [cell.text for cell in fgsm.rows[1]][2:] == ["1.10 %", "20.0 %", "89.4 %"]


def test_transfer_marks_the_diagonal_and_names_denominators(record: RunRecord) -> None:
    tables = list(transfer_tables(RunLookup(record)))
    assert len(tables) == 2 * 4
    both = by_header(tables[-1])[1]
    assert str(both["softmax"]) == "33.3 % ‡ [29.1–37.8] of 447"
    assert both["maxout"].marked == "100.0 % † ‡"
    assert by_header(tables[-2])[1]["Source misclassified"].text == "894"


def test_the_diagonal_is_there_even_if_only_evaluated(record: RunRecord) -> None:
    others = tuple(each for each in record.transfers if each.source != each.target)
    results = RunLookup(record.model_copy(update={"transfers": others}))
    tables = list(transfer_tables(results))
    assert by_header(tables[4])[1]["maxout"].text == "89.4 % †"
    assert by_header(tables[7])[1]["maxout"].text == "100.0 % †"


def test_worst_case_names_an_attack_that_failed(record: RunRecord) -> None:
    failed = record.evaluations[3].model_copy(
        update={"status": "failed", "adversarial_error": None}
    )
    evaluations = (*record.evaluations[:3], failed, *record.evaluations[4:])
    case = record.worst_cases[0].model_copy(update={"attacks": ("fgsm",)})
    changed = record.model_copy(update={"evaluations": evaluations, "worst_cases": (case,)})
    row = by_header(next(iter(worst_case_tables(RunLookup(changed)))))[0]
    assert row["Attacks"].text == "fgsm, fgsm-naive failed"


def test_agreement_of_no_examples_is_a_dash(record: RunRecord) -> None:
    low, high = agreement_tables(RunLookup(record))
    assert by_header(low)[0]["Same wrong class"].text == "–"
    assert by_header(high)[0]["of both misclassified"].text == "240 / 450"


def test_trouble_comes_first_and_is_left_out_where_there_is_none(record: RunRecord) -> None:
    assert chapters(record)[0].title == FAILURES_AND_FLAGS
    fine = record.model_copy(
        update={
            "failures": (),
            "flags": (),
            "evaluations": tuple(
                each.model_copy(update={"flags": ""}) for each in record.evaluations
            ),
        }
    )
    assert FAILURES_AND_FLAGS not in [chapter.title for chapter in chapters(fine)]
    unfinished = chapters(fine.model_copy(update={"status": "interrupted"}))[0]
    assert "not complete (interrupted)" in unfinished.notes[0]


def test_rows_of_another_width_than_the_header_are_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table("t", (Column("a"), Column("b")), ((TableCell("1"),),))


@pytest.mark.parametrize(
    ("rate", "printed"),
    [
        (1.0, "100.0 %"),
        (0.9999, "99.99 %"),
        (0.00001, "0.001 %"),
        (0.9999999, ">99.9999 %"),
        (0.9999994, "99.9999 %"),
        (1e-9, "<0.0001 %"),
        (0.0, "0.0 %"),
        (None, "–"),
    ],
)
def test_a_rate_that_is_not_all_or_nothing_does_not_read_so(
    rate: float | None, printed: str
) -> None:
    assert str(percent(rate)) == printed


@pytest.mark.parametrize(
    ("wrong", "printed"),
    [
        (0, "[0.00–0.04]"),
        (1, "[0.002–0.057]"),
        (9_992, "[99.84–99.96]"),
        (9_999, "[99.943–99.998]"),
        (10_000, "[99.96–100.00]"),
    ],
)
def test_the_end_of_an_interval_does_not_read_as_all_or_nothing(wrong: int, printed: str) -> None:
    of = wilson_interval(wrong, 10_000)
    assert str(interval(Measured("done", wrong / 10_000, of.low, of.high))) == printed


def test_an_end_that_decimals_cannot_tell_from_all_is_told_as_above_them() -> None:
    assert str(interval(Measured("done", 0.5, 1e-9, 1 - 1e-9))) == "[<0.0001–>99.9999]"


def test_differences_have_a_sign_unless_they_are_nothing() -> None:
    assert str(points(0.5, 0.4)) == "+10.0"
    assert str(points(0.4, 0.5)) == "−10.0"
    assert str(points(0.50001, 0.5)) == "0.0"
    assert str(points(0.49999, 0.5)) == "0.0"
    assert str(points(None, 0.5)) == "–"


def test_shipped_suites_are_titled_and_cover_the_paper() -> None:
    suites = shipped_suites()
    assert {"goodfellow2015", "mnist-linf", "smoke"} <= suites.keys()
    for suite in suites.values():
        assert suite.title
        assert suite.description
