"""Verdicts on published rows, and that the shipped suites hold every row of the paper."""

from __future__ import annotations

import pytest

from gibbon.records.run import RunRecord
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.published_numbers.verdicts import verdict
from gibbon.specs.decoding import parse_suite, shipped_suites
from gibbon.specs.published import PublishedRow

ROW = {
    "section": "6",
    "dataset": "mnist",
    "model": "maxout",
    "measure": "adversarial_error",
    "attack": ["fgsm", "fgsm-naive"],
    "epsilon": "0.25",
    "value": 0.894,
    "tolerance": 0.01,
    "reason": "another optimiser",
    "needs": "a GPU",
}

# Every number of Goodfellow, Shlens and Szegedy (2015), in the order of its sections.
PAPER = {
    "softmax-fgsm-error": 99.9,
    "softmax-fgsm-confidence": 79.3,
    "maxout-fgsm-error": 89.4,
    "maxout-fgsm-confidence": 97.6,
    "conv-maxout-fgsm-error": 87.15,
    "conv-maxout-fgsm-confidence": 96.6,
    "googlenet-demo": None,
    "logistic-clean-error": 1.6,
    "logistic-fgsm-error": 99,
    "l1-maxout-train-error": 5,
    "maxout-clean-error": 0.94,
    "maxout-adv-clean-error": 0.84,
    "maxout1600-clean-error": 1.14,
    "maxout1600-adv-clean-error": 0.782,
    "maxout-adv-fgsm-error": 17.9,
    "maxout-adv-fgsm-confidence": 81.4,
    "transfer-plain-to-adv": 19.6,
    "transfer-adv-to-plain": 40.9,
    "noise-sign-fgsm-error": 86.2,
    "noise-sign-fgsm-confidence": 97.3,
    "noise-uniform-fgsm-error": 90.4,
    "noise-uniform-fgsm-confidence": 97.8,
    "rbf-fgsm-error": 55.4,
    "rbf-fgsm-confidence": 1.2,
    "rbf-clean-confidence": 60.6,
    "agreement-rbf-maxout": 16.0,
    "agreement-softmax-maxout": 54.6,
    "agreement-softmax-maxout-both-wrong": 84.6,
    "agreement-rbf-maxout-both-wrong": 54.3,
    "agreement-rbf-softmax-both-wrong": 53.6,
    "ensemble-fgsm-error": 91.1,
    "ensemble-member-fgsm-error": 87.9,
    "mp-dbm-clean-error": 0.88,
    "mp-dbm-fgsm-error": 97.5,
    "rubbish-maxout-softmax-rate": 98.35,
    "rubbish-maxout-softmax-confidence": 92.8,
    "rubbish-maxout-sigmoid-rate": 68,
    "rubbish-maxout-sigmoid-confidence": 87.9,
    "rubbish-softmax-rate": 59.8,
    "rubbish-softmax-confidence": 70.8,
    "rubbish-rbf-rate": 0,
    "rubbish-maxout-fives": 45.3,
    "rubbish-conv-maxout-rate": 93.4,
    "rubbish-conv-maxout-confidence": 84.4,
    "fooling-conv-maxout-mean": 75.3,
    "fooling-conv-maxout-airplane": 24.7,
}


def row(**changes: object) -> PublishedRow:
    return PublishedRow.model_validate({**ROW, **changes})


def word(record: RunRecord, **changes: object) -> str:
    found = verdict(row(**changes), RunLookup(record))
    return "" if found is None else found.word


def test_a_row_is_reproduced_within_its_tolerance_and_differs_outside(record: RunRecord) -> None:
    measured = {"attack": "fgsm"}  # 89.4 % in this record
    assert word(record, **measured, value=0.894, tolerance=0) == "reproduced"
    assert word(record, **measured, value=0.884, tolerance=0.01) == "reproduced"
    assert word(record, **measured, value=0.904, tolerance=0.01) == "reproduced"
    assert word(record, **measured, value=0.8839, tolerance=0.01) == "differs"
    assert word(record, **measured, value=0.9041, tolerance=0.01) == "differs"
    assert word(record, **measured, value=0.5, tolerance=0.0, above=True) == "reproduced"
    assert word(record, **measured, value=0.9, tolerance=0.01, above=True) == "reproduced"
    assert word(record, **measured, value=0.9, tolerance=0.001, above=True) == "differs"
    assert word(record, tolerance=None) == ""


def test_a_verdict_says_why_and_under_which_attack(record: RunRecord) -> None:
    results = RunLookup(record)
    far = verdict(row(value=0.1), results)
    assert far is not None
    assert far.why == "another optimiser"
    confidence = row(measure="confidence_on_misclassified", value=0.9, tolerance=0.001)
    named = verdict(confidence, results)  # 79.3 % under fgsm, 90.0 % under fgsm-naive
    assert named is not None
    assert (named.word, named.attack) == ("reproduced", "fgsm-naive")
    absent = verdict(row(model="rbf"), results)
    assert absent is not None
    assert (absent.word, absent.why) == ("not run", "a GPU")
    assert word(record, model="broken") == "failed"


def test_what_was_run_and_found_nothing_to_count_is_not_called_not_run(record: RunRecord) -> None:
    asked = {
        "dataset": "mnist-3v7",
        "model": "logistic",  # FGSM misleads it on no example of this record
        "attack": ["fgsm"],
        "measure": "confidence_on_misclassified",
    }
    found = verdict(row(**asked), RunLookup(record))
    assert found is not None
    assert found.word == "differs"
    assert "no example" in found.why


def test_the_table_prints_verdicts_where_a_row_states_a_tolerance(record: RunRecord) -> None:
    plain = paper_table(RunLookup(record))
    assert plain is not None
    assert "Verdict" not in [column.header for column in plain.columns]

    rows = (
        row(measure="confidence_on_misclassified", value=0.9, tolerance=0.001),
        row(value=0.1, note="of another size"),
        row(model="rbf"),
        row(above=True, value=0.05),
        row(tolerance=None),
        row(measure="one_picture", value=None, text="a panda", tolerance=None),
    )
    suite = record.suite.model_copy(update={"published": rows})
    table = paper_table(RunLookup(record.model_copy(update={"suite": suite})))
    assert table is not None
    headers = [column.header for column in table.columns]
    lines = [dict(zip(headers, map(str, line), strict=True)) for line in table.rows]
    assert [line["Verdict"] for line in lines] == [
        "reproduced (fgsm-naive)",
        "differs",
        "not run",
        "reproduced",
        "",
        "not run",
    ]
    assert [line["Note"] for line in lines] == ["", "(1) (2)", "(3)", "", "", "(3)"]
    assert table.notes[-3:] == ("(1) of another size", "(2) another optimiser", "(3) a GPU")
    assert [line["Published"] for line in lines[2:]] == ["89.4 %", ">5 %", "89.4 %", "a panda"]
    assert [line["Tolerance"] for line in lines[2:5]] == ["±1", "±1", "–"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ('measure = "one_picture"\nvalue = 0.1', "measure 'one_picture' with value 0.1"),
        ('measure = "clean_error"', "measure 'clean_error' with value None"),
        ('measure = "one_picture"', "text is missing"),
        ('measure = "clean_error"\nvalue = 0.1\ntolerance = 2', "less than or equal to 1"),
    ],
)
def test_a_row_that_says_nothing_is_refused(changes: str, says: str) -> None:
    text = (
        'name = "x"\ndataset = "mnist"\nmodels = ["rbf"]\n[[published]]\nsection = "1"\n'
        f'dataset = "mnist"\nmodel = "rbf"\n{changes}\n'
    )
    with pytest.raises(Exception, match=says):
        parse_suite(text, where="x.toml")


def test_every_number_of_the_paper_is_a_row_that_gets_a_verdict() -> None:
    rows = {each.id: each for each in shipped_suites()["goodfellow2015"].published}
    assert set(rows) == set(PAPER)
    for name, percent in PAPER.items():
        value = rows[name].value
        if percent is None:
            assert value is None
        else:
            assert value == pytest.approx(percent / 100)
            assert rows[name].tolerance is not None
