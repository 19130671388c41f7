"""What the tests compare with: it lets rounding pass and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import numpy as np
import other_kernels
import planted
import pytest
import torch
from same_outcomes import TOLERANCE, assert_same, assert_same_tables

from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.run import Evaluation

ROW = Evaluation(
    dataset="d",
    model="m",
    attack="a",
    epsilon="0.1",
    examples=3,
    adversarial_error=1 / 3,
    mean_confidence=0.5,
    mean_distance=0.1,
    seconds=1.0,
)
ANSWERS = TargetOutcome(np.array([0, 1, 2], np.int32), np.array([0.5, 0.6, 0.7], np.float32))
OUTCOME = Outcome(
    example_id=np.arange(3),
    label=np.zeros(3, np.int32),
    verdict=np.zeros(3, np.int8),
    distance=np.full(3, 0.1, np.float32),
    any_misclassified=np.array([False, True, True]),
    saturated=None,
    zero_gradient=None,
    scores={"digest": ANSWERS},
    meta=OutcomeMeta(seconds=1.0),
    nearest=np.array([0.1, np.nan, np.inf], np.float32),
)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seconds": 9.0}, True),
        ({"mean_confidence": 0.5 + TOLERANCE}, True),
        ({"mean_distance": 0.1 + TOLERANCE / 2}, True),
        ({"mean_confidence": 0.5001}, False),
        ({"mean_confidence": None}, False),
        ({"adversarial_error": 1 / 3 + 1e-12}, False),
        ({"examples": 4}, False),
        ({"flags": "mind the gap"}, False),
    ],
)
def test_rows_are_the_same_up_to_rounding(change: dict[str, Any], same: bool) -> None:
    assert_same_or_not([ROW], [ROW.model_copy(update=change)], same)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"meta": OutcomeMeta(seconds=9.0)}, True),
        ({"distance": OUTCOME.distance + np.float32(1e-6)}, True),
        ({"nearest": OUTCOME.nearest * np.float32(1 + 1e-6)}, True),
        ({"scores": {"digest": replace(ANSWERS, confidence=ANSWERS.confidence - 1e-6)}}, True),
        ({"scores": {"digest": replace(ANSWERS, confidence=ANSWERS.confidence - 1e-3)}}, False),
        ({"scores": {"digest": replace(ANSWERS, predicted=ANSWERS.predicted[::-1])}}, False),
        ({"scores": {"another": ANSWERS}}, False),
        ({"meta": OutcomeMeta(forward_passes=1)}, False),
        ({"distance": OUTCOME.distance[:2]}, False),
        ({"nearest": None}, False),
        ({"verdict": np.array([0, 0, 1], np.int8)}, False),
        ({"zero_gradient": np.zeros(3, bool)}, False),
    ],
)
def test_outcomes_are_the_same_up_to_rounding(change: dict[str, Any], same: bool) -> None:
    assert_same_or_not(OUTCOME, replace(OUTCOME, **change), same)


def assert_same_or_not(one: Any, other: Any, same: bool) -> None:
    if same:
        assert_same(one, other)
    else:
        with pytest.raises(AssertionError):
            assert_same(one, other)


@pytest.mark.parametrize(
    ("name", "texts", "same"),
    [
        ("a.csv", ("model,mean_confidence\nm,0.5\n", "model,mean_confidence\nm,0.500001\n"), True),
        ("a.csv", ("model,mean_confidence\nm,0.5\n", "model,mean_confidence\nm,0.501\n"), False),
        ("a.csv", ("model,mean_confidence\nm,0.5\n", "model,mean_confidence\nm,\n"), False),
        ("a.csv", ("model,clean_error\nm,0.5\n", "model,clean_error\nm,0.500001\n"), False),
        ("a.csv", ("model,seconds\nm,0.5\n", "model,seconds\nm,7\n"), True),
        ("a.md", ("| m | 59.5 % | 36 |", "| m | 59.6 % | 36 |"), True),
        ("a.md", ("| m | 59.5 % | 36 |", "| m | 59.7 % | 36 |"), False),
        ("a.md", ("| m | 59.5 % | 36 |", "| m | 59.5 % | 37 |"), False),
    ],
)
def test_tables_are_the_same_up_to_rounding(
    tmp_path: Path, name: str, texts: tuple[str, str], same: bool
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, text in zip(folders, texts, strict=True):
        folder.mkdir()
        (folder / name).write_text(text)
    if same:
        assert_same_tables(*folders, name)
    else:
        with pytest.raises(AssertionError):
            assert_same_tables(*folders, name)


def test_other_kernels_change_the_last_bits_and_not_what_is_computed_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = next(each for each in range(30, 60) if other_kernels.other(torch.empty(each)))
    inputs = nets.random_batch(size).inputs
    squares = planted.squares().batch(np.arange(size)).inputs + 0.1
    found = []
    for replaced in (False, True):
        with monkeypatch.context() as patch, torch.no_grad():
            if replaced:
                other_kernels.replace(patch)
            outputs = [kind().predict(inputs) for kind in (nets.linear, nets.mlp)]
            found.append((outputs, planted.Rows(1)(squares)))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(found[0][1], found[1][1])
