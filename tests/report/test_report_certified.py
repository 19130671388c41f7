"""Certified errors in tables and files, and verdicts on published bounds."""

from __future__ import annotations

import pytest

from gibbon.core.threat import Epsilon, Norm
from gibbon.records.run import CertifiedBound, RunRecord
from gibbon.report.content.parts.layout import Table
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.published_numbers.verdicts import verdict
from gibbon.report.content.summary.headline import headline_tables
from gibbon.report.content.tables.certified import certified_tables
from gibbon.report.content.tables.evaluations import evaluation_tables
from gibbon.report.content.tables.worst_case import worst_case_tables
from gibbon.report.text.csv import BOUNDS_FILE, csv_files
from gibbon.report.text.markdown import tables_markdown
from gibbon.specs.published import PublishedRow

EPSILON = Epsilon.parse("0.25")


def with_bound(record: RunRecord, error: float | None, *, requested: bool = False) -> RunRecord:
    """The record with a bound of its first model at epsilon 0.25, in the rows that it is about."""
    known = {"certified_error": error, "certified_by": None if error is None else "ibp"}
    bound = CertifiedBound(
        dataset="mnist", model="softmax", norm=Norm.LINF, epsilon=EPSILON, clip=False,
        examples=10000, requested=requested, reason="it rounds", **known,
    )  # fmt: skip

    def concerned(row: object) -> bool:
        key = ("dataset", "model", "norm", "epsilon", "clip")
        return all(getattr(row, name) == getattr(bound, name) for name in key)

    changed = {
        kind: tuple(
            row.model_copy(update=known) if concerned(row) else row for row in getattr(record, kind)
        )
        for kind in ("evaluations", "worst_cases")
    }
    return record.model_copy(update={"bounds": (bound,), **changed})


def column(table: Table, header: str) -> list[str]:
    (place,) = [index for index, each in enumerate(table.columns) if each.header == header]
    return [str(row[place]) for row in table.rows]


def tables(record: RunRecord) -> list[Table]:
    results = RunLookup(record)
    made = (evaluation_tables(results), headline_tables(results), worst_case_tables(results))
    return [next(iter(each)) for each in made]


def test_a_certified_error_is_a_column_with_its_method(record: RunRecord) -> None:
    for table in tables(with_bound(record, 0.999)):
        shown = column(table, "Certified error")
        assert set(shown) == {"99.9 % (ibp)", "–"}
        assert any("upper bound" in note for note in table.notes)


@pytest.mark.parametrize("error", [None, 1.0])
def test_the_column_is_left_out_if_nothing_is_proved(
    record: RunRecord, error: float | None
) -> None:
    shown = with_bound(record, error)
    for table in tables(shown):
        assert "Certified error" not in [each.header for each in table.columns]
        assert table in tables(record)
    assert not list(certified_tables(RunLookup(shown)))


def test_requested_bounds_are_listed_with_the_reason(record: RunRecord) -> None:
    (table,) = certified_tables(RunLookup(with_bound(record, None, requested=True)))
    assert column(table, "Note") == ["it rounds"]
    assert column(table, "Certified error") == ["–"]
    text = tables_markdown(with_bound(record, 1.0, requested=True))
    assert "## Certified bounds" in text
    assert "100.0 %" in text


def test_bounds_are_a_file_if_there_are_any(record: RunRecord) -> None:
    assert BOUNDS_FILE not in csv_files(record)
    text = csv_files(with_bound(record, 0.5))[BOUNDS_FILE]
    assert text.splitlines()[1].startswith("mnist,softmax,linf,0.25,False,10000,0.5,")


def of_all_examples(record: RunRecord) -> RunRecord:
    """The record as if it had evaluated every example of its datasets."""
    cards = tuple(each.model_copy(update={"of": each.examples}) for each in record.datasets)
    return record.model_copy(update={"datasets": cards})


def word(record: RunRecord, **changes: object) -> str:
    row = {
        "section": "1", "dataset": "mnist", "model": "softmax", "measure": "worst_case_error",
        "epsilon": "0.25", "attack": ["fgsm", "fgsm-naive"], "value": 0.5, "tolerance": 0.0005,
    }  # fmt: skip
    found = verdict(PublishedRow.model_validate({**row, **changes}), RunLookup(record))
    return "" if found is None else found.word


def test_published_bounds_hold_the_strongest_attack_between_them(record: RunRecord) -> None:
    whole = of_all_examples(record)  # 99.9 % under both attacks
    certified = {"measure": "certified_error"}
    assert word(whole, **certified, value=0.999) == "between"
    assert word(whole, **certified, value=0.9986) == "between"
    assert word(whole, **certified, value=0.998) == "above the certified error"
    assert word(whole, bound="lower", value=0.999) == "between"
    assert word(whole, bound="lower", value=0.9994) == "between"
    assert word(whole, bound="lower", value=1.0) == "weaker than published"
    assert word(whole, bound="lower", value=1.0, attack=["fgsm", "pgd"]) == "between"
    assert word(whole, bound="lower", value=0.9, attack=["square"]) == "not run"
    assert word(whole, bound="lower", value=0.9, model="broken") == "failed"


def test_a_sample_exceeds_a_bound_only_beyond_its_interval(record: RunRecord) -> None:
    certified = {"measure": "certified_error", "attack": "fgsm", "tolerance": 0}
    assert word(record, **certified, value=0.995) == "between"
    assert word(record, **certified, value=0.994) == "above the certified error"
    assert word(of_all_examples(record), **certified, value=0.995) == "above the certified error"


def test_published_bounds_are_printed_with_their_direction(record: RunRecord) -> None:
    row = {"section": "1", "dataset": "mnist", "model": "softmax", "epsilon": "0.25"}
    rows = [
        {**row, "measure": "certified_error", "value": 0.058, "attack": "fgsm"},
        {**row, "measure": "worst_case_error", "value": 0.041, "attack": "fgsm", "bound": "lower"},
    ]
    published = tuple(PublishedRow.model_validate(each) for each in rows)
    suite = record.suite.model_copy(update={"published": published})
    table = paper_table(RunLookup(record.model_copy(update={"suite": suite})))
    assert table is not None
    assert column(table, "Published") == ["≤ 5.8 %", "≥ 4.1 %"]
    assert column(table, "Verdict") == ["above the certified error", "between"]
    assert any("no attack may find more errors" in note for note in table.notes)
