"""Verdicts over several trainings, on claims, and their tables: each word at its borders."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from made_up import NOWHERE

from gibbon.metrics.intervals import wilson_interval
from gibbon.records.run import RunRecord
from gibbon.records.tested_claims import ClaimTest
from gibbon.report.content.chapters import chapters
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.published_numbers.claims import claims_table
from gibbon.report.content.published_numbers.over_trainings import OverTrainings
from gibbon.report.content.published_numbers.published import paper_table
from gibbon.report.content.published_numbers.verdicts import claim_verdict, verdict
from gibbon.report.text.csv import csv_files
from gibbon.specs.decoding import parse_suite

EXAMPLES = 10_000
SUITE = """
name = "trainings"

[[experiments]]
dataset = "mnist"
models = [{models}, {{ name = "rbf", model = "rbf" }}]
attacks = [{{ name = "fgsm", epsilon = "0.25", clip = false }}]
transfer = {{ attacks = ["fgsm"] }}

[[claims]]
id = "falls"
section = "6"
text = "the error falls"
order = "lower"
first = {{ dataset = "mnist", model = "net", measure = "clean_error" }}
second = {{ dataset = "mnist", model = "rbf", measure = "clean_error" }}
needs = "a GPU"

[[published]]
id = "clean"
section = "6"
dataset = "mnist"
model = "net"
measure = "clean_error"
value = {value}
tolerance = {tolerance}
reason = "another recipe"
{more}

[[published]]
id = "agreement"
section = "8"
dataset = "mnist"
model = "net"
target = "rbf"
attack = "fgsm"
epsilon = "0.25"
measure = "same_class_given_both_misclassified"
value = {value}
tolerance = {tolerance}
judged_by = "range"
"""


def record_of(
    *rates: float,
    value: float = 0.5,
    tolerance: float = 0.0,
    more: str = "",
    test: dict[str, Any] | None = None,
) -> RunRecord:
    """Returns a record of trainings with these rates: clean errors, and agreements with `rbf`."""
    names = [f"net-{place}" for place in range(len(rates))]
    models = ", ".join(f'{{ name = "{name}", model = "net", seeds_of = "net" }}' for name in names)
    text = SUITE.format(models=models, value=value, tolerance=tolerance, more=more)
    rows, transfers = [], []
    for name, rate in zip(names, rates, strict=True):
        interval = wilson_interval(rate * EXAMPLES, EXAMPLES)
        ends = {"low": interval.low, "high": interval.high}
        row = {"dataset": "mnist", "model": name, "attack": "none", "epsilon": "0"}
        row |= {"examples": EXAMPLES, "clean_error": rate, "adversarial_error": rate}
        row |= {f"clean_error_{end}": each for end, each in ends.items()}
        rows.append({**row, "clean_correct": round((1 - rate) * EXAMPLES), "misclassified": 1})
        agreed = {f"same_class_given_both_misclassified_{end}": each for end, each in ends.items()}
        transfers.append(
            {
                "dataset": "mnist",
                "source": name,
                "target": "rbf",
                "attack": "fgsm",
                "epsilon": "0.25",
                "examples": EXAMPLES,
                "both_misclassified": EXAMPLES,
                "same_class_given_both_misclassified": rate,
                **agreed,
            }
        )
    claims = [] if test is None else [claim_test(**test).model_dump()]
    return RunRecord.model_validate(
        {
            "suite": parse_suite(text, where="x.toml"),
            "status": "done",
            "provenance": NOWHERE,
            "evaluations": rows,
            "transfers": transfers,
            "claims": claims,
        }
    )


def claim_test(difference: float, p_value: float, order: str = "lower") -> ClaimTest:
    return ClaimTest.model_validate(
        {
            "id": "falls",
            "order": order,
            "examples": EXAMPLES,
            "first": 0.5 + difference,
            "second": 0.5,
            "first_trainings": 3,
            "second_trainings": 1,
            "difference": difference,
            "difference_low": difference - 0.01,
            "difference_high": difference + 0.01,
            "test": "McNemar's exact test",
            "p_value": p_value,
            "models": ("net-0", "rbf"),
        }
    )


def word(record: RunRecord, place: int = 0) -> str:
    found = verdict(record.suite.published[place], RunLookup(record))
    assert found is not None
    return found.word


def test_the_mean_over_trainings_is_compared_and_not_one_of_them() -> None:
    assert word(record_of(0.4, 0.5, 0.6, value=0.5)) == "reproduced"
    assert word(record_of(0.4, 0.5, 0.6, value=0.51, tolerance=0.01)) == "reproduced"
    assert word(record_of(0.4, 0.5, 0.6, value=0.511, tolerance=0.01)) == "differs"
    # The first training alone is the published number.
    assert word(record_of(0.5, 0.6, 0.7, value=0.5, tolerance=0.01)) == "differs"
    assert word(record_of(0.5, value=0.5)) == "reproduced"


def test_an_agreement_is_compared_with_the_range_over_trainings() -> None:
    assert word(record_of(0.4, 0.6, value=0.6), 1) == "reproduced"
    assert word(record_of(0.4, 0.6, value=0.41), 1) == "reproduced"
    assert word(record_of(0.4, 0.6, value=0.61), 1) == "differs"
    assert word(record_of(0.4, 0.6, value=0.61, tolerance=0.01), 1) == "reproduced"
    assert word(record_of(0.4, 0.6, value=0.39, tolerance=0.009), 1) == "differs"
    # With one training the range is this one number.
    assert word(record_of(0.4, value=0.41, tolerance=0.009), 1) == "differs"


def test_a_lower_bound_is_refuted_if_the_intervals_of_all_trainings_are_below() -> None:
    above = "above = true"
    assert word(record_of(0.51, 0.49, value=0.5, more=above)) == "reproduced"
    assert word(record_of(0.40, 0.495, value=0.5, more=above)) == "differs"
    assert word(record_of(0.40, 0.48, value=0.5, more=above)) == "refuted"
    assert word(record_of(0.40, value=0.5, more=above)) == "refuted"
    upper = wilson_interval(4000, EXAMPLES).high
    assert word(record_of(0.40, value=upper, more=above)) == "differs"
    found = verdict(
        (record := record_of(0.4, value=0.5, more=above)).suite.published[0], RunLookup(record)
    )
    assert found is not None
    assert "every training is below 50 %" in found.why
    assert "another recipe" in found.why


@pytest.mark.parametrize(
    ("test", "expected", "of_claim"),
    [
        (None, "reproduced", "not run"),
        ({"difference": -0.1, "p_value": 0.001}, "reproduced", "reproduced"),
        ({"difference": 0.1, "p_value": 0.049}, "refuted", "refuted"),
        ({"difference": 0.1, "p_value": 0.05}, "reproduced", "undecided"),
        ({"difference": -0.1, "p_value": 0.05}, "reproduced", "undecided"),
        ({"difference": 0.0, "p_value": 0.0}, "reproduced", "undecided"),
        ({"difference": -0.1, "p_value": 0.0, "order": "higher"}, "refuted", "refuted"),
    ],
)
def test_a_number_is_refuted_if_the_effect_that_it_belongs_to_is(
    test: dict[str, Any] | None, expected: str, of_claim: str
) -> None:
    record = record_of(0.5, value=0.5, more='effect = "falls"', test=test)
    results = RunLookup(record)
    row, (claim,) = record.suite.published[0], record.suite.claims
    found = verdict(row, results)
    assert found is not None
    assert found.word == expected
    assert claim_verdict(claim, results).word == of_claim
    if expected == "refuted":
        assert "McNemar's exact test, p " in found.why
        assert "the error falls: " in found.why
    # Without the reference to the claim it is a number like any other.
    assert word(record_of(0.5, value=0.5, test=test)) == "reproduced"


def test_a_claim_that_was_not_run_says_what_it_needs() -> None:
    record = record_of(0.5)
    found = claim_verdict(record.suite.claims[0], RunLookup(record))
    assert (found.word, found.why) == ("not run", "a GPU")


def test_a_training_that_failed_fails_the_number() -> None:
    record = record_of(0.4, 0.6)
    failed = record.evaluations[1].model_copy(update={"status": "failed", "clean_error": None})
    broken = record.model_copy(update={"evaluations": (record.evaluations[0], failed)})
    assert word(broken) == "failed"


@pytest.mark.parametrize("rate", [0.99, 179 / 2038, 0.1])
def test_equal_trainings_have_no_spread(rate: float) -> None:
    record = record_of(rate, rate, rate, value=0.3)
    found = OverTrainings.of(record.suite.published[0], RunLookup(record), "none")
    assert (found.deviation, found.spread) == (0.0, None)
    assert str(found.difference_cell(0.3)) == "–"


def test_the_difference_is_in_points_and_in_spreads() -> None:
    record = record_of(0.4, 0.5, 0.6, value=0.3)
    found = OverTrainings.of(record.suite.published[0], RunLookup(record), "none")
    assert found.count == 3
    assert found.deviation == pytest.approx(0.1)
    assert str(found.difference_cell(0.3)) == "+2.0 sd"
    assert str(found.spread_cell()) == "±10.0 [40.0–60.0]"
    table = paper_table(RunLookup(record))
    assert table is not None
    headers = [column.header for column in table.columns]
    line = dict(zip(headers, map(str, table.rows[0]), strict=True))
    assert (line["Measured (fgsm)"], line["n"], line["Δ points"]) == ("50.0 %", "3", "+20.0")
    assert line["Δ / spread"] == "+2.0 sd"
    notes = " ".join(table.notes)
    assert "standard deviation, with n − 1, and range" in notes
    assert "distance from their range" in notes

    alone = record_of(0.5, value=0.3)
    found = OverTrainings.of(alone.suite.published[0], RunLookup(alone), "none")
    half = (found.measured.high - found.measured.low) / 2  # type: ignore[operator]
    assert str(found.difference_cell(0.3)) == f"+{0.2 / half:.1f} hw"
    assert str(found.spread_cell()) == ""
    table = paper_table(RunLookup(alone))
    assert table is not None
    headers = [column.header for column in table.columns]
    assert "Over trainings" not in headers
    assert str(dict(zip(headers, table.rows[0], strict=True))["n"]) == "1"


def test_the_files_hold_verdicts_and_tests() -> None:
    record = record_of(
        0.4, 0.6, value=0.5, more='effect = "falls"', test={"difference": 0.1, "p_value": 0.01}
    )
    files = csv_files(record)
    rows = list(csv.DictReader(io.StringIO(files["published.csv"])))
    assert [row["id"] for row in rows] == ["clean", "agreement"]
    first = rows[0]
    assert (first["verdict"], first["trainings"], first["spread_unit"]) == ("refuted", "2", "sd")
    assert float(first["lowest"]) == 0.4
    assert float(first["points"]) == pytest.approx(0.0)
    (claim,) = csv.DictReader(io.StringIO(files["claims.csv"]))
    assert (claim["id"], claim["p_value"], claim["models"]) == ("falls", "0.01", "net-0 rbf")

    titles = [chapter.title for chapter in chapters(record)]
    assert titles[:2] == ["Published and measured", "Claims"]
    table = claims_table(RunLookup(record), record.suite.claims)
    assert table is not None
    line = dict(zip((c.header for c in table.columns), map(str, table.rows[0]), strict=True))
    assert line["Compared"] == "clean error of net (mnist) < clean error of rbf (mnist)"
    assert (line["Difference"], line["p"]) == ("+10.0 [+9.0 to +11.0]", "0.01")
    assert (line["Trainings"], line["Verdict"]) == ("3 and 1", "refuted")
    assert line["Second"] == "not run"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('effect = "falls"', 'effect = "fals"', "effect 'fals' is no claim .*'falls'"),
        ("[[claims]]\n", "[[claims]]\nconstant = 0.5\n", "both are given"),
        (
            'measure = "clean_error" }\nsecond',
            'measure = "auroc" }\nsecond',
            "no mean over examples",
        ),
        (
            'model = "net", measure = "clean',
            'model = "net", target = "rbf", measure = "clean',
            "target",
        ),
    ],
)
def test_a_claim_that_can_not_be_tested_is_refused(before: str, after: str, says: str) -> None:
    text = SUITE.format(
        models='{ name = "net", model = "net" }', value=0.5, tolerance=0.1, more='effect = "falls"'
    )
    assert before in text
    with pytest.raises(Exception, match=says):
        parse_suite(text.replace(before, after, 1), where="x.toml")
