"""Flags of one cell: raised by what its candidates show, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gibbon.core.threat import Epsilon, Verdict
from gibbon.diagnostics.attacked_cell import AttackedCell
from gibbon.diagnostics.cell_flags import cell_flags
from gibbon.records.flags import Flag
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.run import Evaluation

NAN = float("nan")


def flags(
    verdict: Any = (0, 0, 0, 0),
    distance: Any = (0.1, 0.1, 0.1, 0.1),
    *,
    epsilon: str = "0.1",
    zero: Any = None,
    done: Any = None,
    nearest: Any = None,
) -> list[Flag]:
    count = len(verdict)
    row = Evaluation(
        dataset="d", model="m", attack="a", epsilon=Epsilon.parse(epsilon), examples=count
    )
    answers = TargetOutcome(np.zeros(count, np.int32), np.ones(count, np.float32))
    outcome = Outcome(
        example_id=np.arange(count, dtype=np.int64),
        label=np.zeros(count, np.int32),
        verdict=np.array(verdict, np.int8),
        distance=np.array(distance, np.float32),
        any_misclassified=np.array(done or [False] * count, np.bool_),
        saturated=None,
        zero_gradient=None if zero is None else np.array(zero, np.bool_),
        nearest=None if nearest is None else np.array(nearest, np.float32),
        scores={"m": answers},
        meta=OutcomeMeta(),
    )
    return list(cell_flags(AttackedCell(row, outcome)))


def test_a_sound_cell_has_no_flag() -> None:
    assert flags() == []
    assert flags(zero=[False] * 4) == []


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.NOT_FINITE, "not finite"),
        (Verdict.OUT_OF_BOUNDS, "out of bounds"),
        (Verdict.OUT_OF_BUDGET, "out of budget"),
    ],
)
def test_invalid_candidates_are_counted(verdict: Verdict, words: str) -> None:
    (flag,) = flags(verdict=[0, verdict, verdict, 0])
    assert (flag.kind, flag.severity) == ("invalid-candidates", "serious")
    assert flag.figure.startswith("2 of 4")
    assert flag.subject == "d, m, a at epsilon 0.1"
    assert flag.sentence.startswith(f"2 of 4 candidates {words}")
    assert flag.sentence.endswith(": not counted as adversarial")


def test_kinds_of_invalid_candidates_have_separate_flags() -> None:
    assert len(flags(verdict=[1, 2, 3, 3])) == 3


def test_an_attack_that_returned_its_inputs_is_flagged() -> None:
    (flag,) = flags(distance=[0, 0, 0, 0])
    assert flag.kind == "inputs-unchanged"
    (some,) = flags(distance=[0, 0, 1e-9, 0])
    assert (some.kind, some.figure) == ("inputs-unchanged", "3 of 4")
    assert flags(distance=[0, 0.1, 0.1, 0.1]) == []
    assert flags(distance=[0, 0, 0, 0], epsilon="0") == []
    assert len(flags(distance=[0, 0, 0, 0], done=[True, True, False, True])) == 1


def test_an_attack_that_had_nothing_to_do_may_return_its_inputs() -> None:
    assert flags(distance=[0, 0, 0, 0], done=[True] * 4) == []
    assert flags(distance=[0, 0, 0, 0], nearest=[0.3, 0.2, 0.4, 0.9]) == []


def test_nan_distances_are_no_unchanged_inputs() -> None:
    (flag,) = flags(verdict=[1] * 4, distance=[NAN] * 4)
    assert "not finite" in flag.sentence


def test_zero_gradients_are_flagged_from_one_percent_on() -> None:
    few = [True] * 3 + [False] * 298
    assert flags([0] * 301, [0.1] * 301, zero=few) == []
    (flag,) = flags([0] * 300, [0.1] * 300, zero=few[:300])
    assert (flag.kind, flag.severity) == ("zero-gradient", "serious")
    assert flag.sentence == "the gradient is zero in every coordinate for 3 of 300 examples"


@pytest.mark.parametrize(("count", "total"), [(1, 3), (2, 3), (1, 1), (1, 100)])
def test_one_or_two_examples_are_not_serious(count: int, total: int) -> None:
    zero = [True] * count + [False] * (total - count)
    (flag,) = flags([0] * total, [0.1] * total, zero=zero)
    assert (flag.kind, flag.severity) == ("zero-gradient", "warning")
    assert f"{count} of {total} looked at, where a serious flag needs 3" in flag.sentence
