"""Models compared under the headline, and over training seeds."""

from __future__ import annotations

import pytest

from gibbon.core.threat import Epsilon
from gibbon.records.run import ModelComparison, RunRecord
from gibbon.report.content.parts.lookup import RunLookup
from gibbon.report.content.summary.headline import headline_tables
from gibbon.report.content.tables.training_seeds import seed_tables


def pair(record: RunRecord, **changes: object) -> ModelComparison:
    return record.comparisons[0].model_copy(update={"flags": "", **changes})


def notes(record: RunRecord, *comparisons: ModelComparison) -> tuple[str, ...]:
    changed = record.model_copy(update={"comparisons": comparisons})
    table, *_ = headline_tables(RunLookup(changed))
    return table.notes


UNCLEAR = {
    **{"more_robust": "", "p_value": 0.2, "only_first": 30, "only_second": 20},
    "examples_needed": 3923,
}


def test_the_more_robust_of_two_models_is_named(record: RunRecord) -> None:
    (note,) = notes(record, pair(record))
    assert note == (
        "L∞, ε = 0.25, not clipped: maxout is more robust than softmax: of the same 1,000 "
        "examples, 97 are misclassified by softmax alone and 9 by maxout alone (McNemar's exact "
        "test, p < 0.001)."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "30 against 20 examples, p = 0.2; about 4,000 would be needed"),
        ({"examples_needed": None, "only_second": 30}, "30 against 30 examples, p = 0.2"),
        ({"only_first": 0, "only_second": 0}, "misclassified on the same examples"),
    ],
)
def test_two_models_that_cannot_be_told_apart_are_named_with_what_is_missing(
    record: RunRecord, changes: dict[str, object], words: str
) -> None:
    (note,) = notes(record, pair(record, **{**UNCLEAR, **changes}))
    assert note.endswith(
        f"with 1,000 examples, these can't be distinguished: softmax and maxout ({words})."
    )


def test_a_comparison_with_a_serious_flag_is_in_doubt(record: RunRecord) -> None:
    flagged = next(each for each in record.flags if each.counts and each.model == "maxout")
    (note,) = notes(record, pair(record, flags=flagged.kind))
    assert note.endswith(" Not to be used as it is: maxout with serious flags.")
    accepted = flagged.model_copy(update={"accepted": True})
    flags = tuple(accepted if each is flagged else each for each in record.flags)
    (note,) = notes(record.model_copy(update={"flags": flags}), pair(record, flags=flagged.kind))
    assert "Not to be used" not in note


def test_of_many_models_the_pairs_that_differ_are_counted(record: RunRecord) -> None:
    unclear = [pair(record, **UNCLEAR, second=f"net-{place}") for place in range(7)]
    (note,) = notes(record, pair(record), *unclear)
    assert "of 8 pairs of models, 1 differ significantly on the same 1,000 examples" in note
    assert note.endswith("; and 2 more pairs.")
    assert note.count("would be needed") == 5


def test_the_largest_epsilon_of_each_threat_is_compared(record: RunRecord) -> None:
    smaller = pair(record, epsilon=Epsilon.parse("8/255"), p_value=0.9, more_robust="")
    clipped = pair(record, clip=True)
    first, second = notes(record, smaller, pair(record), clipped)
    assert first.startswith("L∞, ε = 0.25, not clipped: maxout is")
    assert second.startswith("L∞, ε = 0.25, clipped: maxout is")


def test_a_run_of_one_model_compares_nothing(record: RunRecord) -> None:
    assert notes(record) == ()


def test_the_table_over_seeds_has_mean_spread_and_number(record: RunRecord) -> None:
    (table,) = seed_tables(RunLookup(record))
    first, second = ([str(cell).replace(" ‡", "") for cell in row] for row in table.rows)
    assert first[:6] == ["maxout", "none", "–", "2", "5.3 % ± 6.0", "–"]
    assert second[2:] == ["0.25", "2", "5.3 % ± 6.0", "–", "–", "80.0 %", "maxout, softmax"]
