"""Attacks beside each other, and the exact direction beside the naive one."""

from __future__ import annotations

import pytest
from made_up import NOWHERE

from gibbon.core.errors import RecordError, UnknownNameError
from gibbon.core.threat import Epsilon
from gibbon.records.run import Evaluation, Failure, RunRecord
from gibbon.report.content.chart_data.curves import by_model, panels
from gibbon.report.content.parts.layout import Table
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.specs.decoding import parse_suite
from tools.docs.attack_tables import direction_table, side_by_side_table

SUITE = """name = "beside"
dataset = "mnist"
models = ["maxout", "rbf"]

[[attacks]]
name = "fgsm"
epsilon = ["0.25", "0.1"]
clip = false

[[attacks]]
name = "fgsm-naive"
epsilon = "0.25"
clip = false

[[attacks]]
name = "fgsm"
label = "fgsm-clipped"
epsilon = "0.25"
"""


def evaluation(attack: str, error: float, **more: object) -> Evaluation:
    return Evaluation.model_validate(
        {
            "dataset": "mnist",
            "model": "maxout",
            "attack": attack,
            "epsilon": Epsilon.parse("0.25"),
            "examples": 2000,
            "clean_error": 0.01,
            "clean_correct": 1980,
            "adversarial_error": error,
            "adversarial_error_low": max(0.0, error - 0.02),
            "adversarial_error_high": error + 0.02,
            **more,
        }
    )


@pytest.fixture
def results() -> RunLookup:
    return RunLookup(
        RunRecord(
            suite=parse_suite(SUITE, where="beside.toml"),
            status="done",
            provenance=NOWHERE,
            evaluations=(
                evaluation("none", 0.01, epsilon=Epsilon.parse("0")),
                evaluation("fgsm", 0.5, epsilon=Epsilon.parse("0.1")),
                evaluation("fgsm", 0.95),
                evaluation("fgsm-naive", 0.8, saturated_share=0.6, zero_gradient_share=0.25),
                evaluation("fgsm-clipped", 0.9),
            ),
            failures=(
                Failure(
                    dataset="mnist", model="rbf", attack="fgsm", epsilon=Epsilon.parse("0.25"),
                    error="no luck", traceback="",
                ),
            ),
        )
    )  # fmt: skip


def rows(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in table.rows]


def test_the_naive_direction_stands_beside_the_exact_one(results: RunLookup) -> None:
    table = direction_table(results)
    exact, naive = "95.0 % [93.0–97.0]", "80.0 % [78.0–82.0]"
    assert rows(table) == [
        ["maxout", "mnist", "0.25", exact, naive, "−15.0", "60.0 %", "25.0 %"],
        ["rbf", "mnist", "0.25", "failed", "not run", "–", "–", "–"],
    ]


def test_attacks_stand_beside_each_other_at_every_epsilon_of_any(results: RunLookup) -> None:
    table = side_by_side_table(results, ["fgsm", "fgsm-clipped"])
    assert [column.header for column in table.columns][-2:] == ["fgsm, not clipped", "fgsm-clipped"]
    assert [row[3:4] + row[5:] for row in rows(table)] == [
        ["0.1", "50.0 % [48.0–52.0]", "not run"],
        ["0.25", "95.0 % [93.0–97.0]", "90.0 % [88.0–92.0]"],
        ["0.1", "not run", "not run"],
        ["0.25", "failed", "not run"],
    ]


def test_what_can_not_stand_beside_anything_is_told(results: RunLookup) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fgsm'"):
        side_by_side_table(results, ["fgsmm", "fgsm-clipped"])
    with pytest.raises(RecordError, match="two of the attacks fgsm"):
        side_by_side_table(results, ["fgsm"])
    clipped = parse_suite(SUITE.replace("clip = false", ""), where="beside.toml")
    with pytest.raises(RecordError, match="not clipped"):
        direction_table(RunLookup(results.record.model_copy(update={"suite": clipped})))


def test_curves_of_a_model_go_by_attack(results: RunLookup) -> None:
    drawn = panels(results.record)
    (turned,) = by_model(drawn)
    assert (turned.dataset, turned.attack, list(turned.curves)) == ("mnist", "maxout", ["fgsm"])
    assert turned.curves["fgsm"] == drawn[0].curves["maxout"]
