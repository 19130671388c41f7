"""The table of models by attacks, robust accuracy, verdicts and lines on few examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up import made_up_record

from gibbon.api.results import Results
from gibbon.core.errors import SpecError, UnknownNameError
from gibbon.records.run import Evaluation, RunRecord
from gibbon.report.content.chapters import chapters
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.verdicts import verdict
from gibbon.report.content.tables.main_table import MainTableChoice, main_table
from gibbon.report.content.tables.transfer import AGREEMENT, TRANSFER
from gibbon.report.documents import main_choice, main_document
from gibbon.report.text.csv import csv_files
from gibbon.report.text.markdown import tables_markdown

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def curves() -> RunRecord:
    return RunRecord.read(ROOT / "results" / "mnist-linf")


def rows_of(text: str) -> list[str]:
    lines = (line.removesuffix("[2pt]") for line in text.splitlines())
    return [line for line in lines if line.endswith(r"\\") and "&" in line]


def cells_of(line: str) -> list[str]:
    return line.removesuffix(r" \\").split(" & ")


@pytest.mark.parametrize("name", ["mnist-linf", "goodfellow2015", "attack-comparison"])
def test_it_is_one_whole_table(name: str) -> None:
    record = RunRecord.read(ROOT / "results" / name)
    text = main_document(record, MainTableChoice())
    assert text.isascii()
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") == 1
    for part in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\caption{",
        rf"\label{{tab:{name}-main}}",
    ):
        assert text.count(part) == 1
    plain = re.sub(r"\\[{}$&%#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    (aligned,) = re.findall(r"\\begin\{tabular\}\{(l?r*)\}", text)
    widths = []
    for line in rows_of(text):
        several = sum(int(each) - 1 for each in re.findall(r"\\multicolumn\{(\d+)\}", line))
        widths.append(len(re.split(r"(?<!\\) & ", line)) + several)
    assert set(widths) == {len(aligned)}


def test_the_best_of_a_column_is_bold_unless_a_serious_flag_affects_it(curves: RunRecord) -> None:
    table = main_table(curves, MainTableChoice(models=("softmax", "maxout", "maxout-adv", "rbf")))
    for at, column in enumerate(table.columns):
        cells = [row.cells[at] for row in table.rows]
        free = [each.measured.rate for each in cells if not each.mark]
        best = max(each for each in free if each is not None)
        assert {each.measured.rate for each in cells if each.best} == {best}, column
        assert not any(each.best and each.mark for each in cells)
    text = main_document(
        curves, MainTableChoice(models=("softmax", "maxout"), attacks=("fgsm@0.1",))
    )
    (softmax, maxout) = (cells_of(each) for each in rows_of(text)[-2:])
    assert r"\textbf{56.9}" in maxout[2]
    assert r"\textbf" not in softmax[2]
    assert r"{\tiny [52.0--53.9]}" in softmax[2]
    assert r"\textbf{98.9}" in maxout[1]


def test_columns_models_and_attacks_are_chosen(curves: RunRecord) -> None:
    choice = main_choice(
        "main", "adversarial-error, confidence", "maxout,softmax", "fgsm@0.05,pgd", latex=True
    )
    assert choice is not None
    table = main_table(curves, choice)
    found = [(each.measure.name, each.attack, str(each.epsilon)) for each in table.columns]
    assert found == [
        ("adversarial-error", "fgsm", "0.05"),
        ("adversarial-error", "pgd", "0.3"),
        ("confidence", "fgsm", "0.05"),
        ("confidence", "pgd", "0.3"),
    ]
    assert {row.model for row in table.rows} == {"maxout", "softmax"}
    caption = " ".join(table.caption)
    for part in (
        "error against epsilon",
        "10,000 examples",
        "ε = 0.05",
        "pgd: 20 steps",
        "clipped",
    ):
        assert part in caption


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        (MainTableChoice(models=("maxuot",)), "did you mean 'maxout'?"),
        (MainTableChoice(attacks=("fgms",)), "did you mean 'fgsm'?"),
        (MainTableChoice(attacks=("fgsm@0.7",)), "fgsm has no epsilon 0.7; there are 0.05"),
        (MainTableChoice(columns=("robustness",)), "Known: adversarial-error"),
    ],
)
def test_wrong_names_are_refused(curves: RunRecord, choice: MainTableChoice, fault: str) -> None:
    with pytest.raises((SpecError, UnknownNameError)) as caught:
        main_table(curves, choice)
    assert fault in str(caught.value)


def test_options_that_need_others_are_refused() -> None:
    for words, where in (
        (("main", None, None, None, False), "--table"),
        (("all", None, "a", None, True), "--models"),
        ((None, "clean", None, None, True), "--columns"),
        (("small", None, None, None, True), "--table"),
        (("main", None, None, ", ", True), "--attacks"),
    ):
        *lists, latex = words
        with pytest.raises(SpecError, match=where):
            main_choice(*lists, latex=latex)  # type: ignore[arg-type]
    assert main_choice("all", None, None, None, latex=True) is None


def test_failed_and_missing_cells_are_no_numbers() -> None:
    text = main_document(made_up_record(), MainTableChoice())
    (broken,) = (each for each in rows_of(text) if each.startswith("broken"))
    assert set(cells_of(broken)[1:]) == {"failed", "--"}


def test_robust_accuracy_is_what_the_worst_case_leaves(curves: RunRecord) -> None:
    for row in (*curves.evaluations, *curves.worst_cases):
        if row.worst_case_error is None:
            assert row.robust_accuracy is None
            continue
        assert row.robust_accuracy == 1 - row.worst_case_error
        assert row.robust_accuracy_low == 1 - row.worst_case_error_high  # type: ignore[operator]
        assert row.robust_accuracy_high == 1 - row.worst_case_error_low  # type: ignore[operator]
    # Also in records that were stored before there was such a field.
    stored = curves.evaluations[1].model_dump(exclude={"robust_accuracy"})
    assert Evaluation.model_validate(stored) == curves.evaluations[1]
    for name in ("evaluations.csv", "worst_case.csv"):
        assert "robust_accuracy_low" in csv_files(curves)[name].partition("\n")[0]


def with_examples(record: RunRecord, count: int) -> RunRecord:
    datasets = tuple(each.model_copy(update={"examples": count}) for each in record.datasets)
    return record.model_copy(update={"datasets": datasets})


def test_verdicts_are_withheld_on_fewer_than_a_thousand_examples() -> None:
    record = RunRecord.read(ROOT / "results" / "goodfellow2015")
    rows = record.suite.published
    whole, few = (RunLookup(with_examples(record, count)) for count in (1000, 999))
    before = {row.id: verdict(row, whole) for row in rows}
    after = {row.id: verdict(row, few) for row in rows}
    for key, found in before.items():
        if found is None or found.word in ("not run", "failed"):
            assert after[key] == found
        else:
            assert after[key].word == "withheld"  # type: ignore[union-attr]
            assert "999 examples" in after[key].why  # type: ignore[union-attr]
    assert "withheld" in tables_markdown(with_examples(record, 999))


@pytest.mark.parametrize(("wholes", "collapsed"), [(19, True), (20, False)])
def test_tables_of_few_examples_are_a_line(wholes: int, collapsed: bool) -> None:
    record = made_up_record()
    count = {"source_misclassified": wholes, "both_misclassified": wholes, "examples": wholes}
    evaluations = tuple(
        each.model_copy(update={"examples": wholes, "misclassified": wholes})
        for each in record.evaluations
    )
    update = {
        "transfers": tuple(each.model_copy(update=count) for each in record.transfers),
        "agreements": tuple(
            each.model_copy(update={"both_misclassified": wholes}) for each in record.agreements
        ),
        "evaluations": evaluations,
    }
    results = RunLookup(record.model_copy(update=update))
    for kind in (TRANSFER, AGREEMENT):
        chapter = kind.chapter(results)
        assert bool(chapter.collapsed) is collapsed
        assert bool(chapter.tables) is not collapsed
        for line in chapter.collapsed:
            assert re.search(r"fewer than 20 examples \(at most 19\); they are in \w+\.csv", line)
    text = tables_markdown(record.model_copy(update=update))
    assert ("fewer than 20 examples" in text) is collapsed
    found = {each.title for each in chapters(record.model_copy(update=update))}
    assert {"Transfer", "Agreement between targets"} <= found


def test_results_have_the_robust_accuracy_of_one_threat_model(curves: RunRecord) -> None:
    results = Results(curves, {}).select(model="softmax", attack="pgd", epsilon=0.1)
    assert results.robust_accuracy == pytest.approx(0.504, abs=0.0005)
    with pytest.raises(SpecError, match="there are several"):
        Results(curves, {}).robust_accuracy  # noqa: B018
