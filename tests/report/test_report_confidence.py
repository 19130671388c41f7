"""Histograms of confidence: counted from outcomes, kept in a file, never of another cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up import HIGH, attacked, made_up_record

from gibbon.core.errors import RecordError
from gibbon.core.threat import Verdict
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.confidence import (
    BINS,
    CONFIDENCE_FILE,
    confidence_csv,
    confidences,
)
from gibbon.runner.run_folder import RunFolder

KEY = ("mnist", "softmax", "fgsm", str(HIGH))
CELL = "the-cell"


def write_outcome(folder: Path) -> None:
    given = TargetOutcome(
        np.array([3, 3, 7, 7, 7], dtype=np.int32),
        np.array([1.0, 0.52, 0.97, 0.96, 0.5], dtype=np.float32),
    )
    with RunFolder.open(folder, suite="made-up") as opened:
        opened.write(
            CELL,
            Outcome(
                example_id=np.arange(5),
                label=np.array([3, 3, 3, 3, 3], dtype=np.int32),
                verdict=np.array([*[Verdict.VALID] * 4, Verdict.OUT_OF_BUDGET], dtype=np.int8),
                distance=np.zeros(5, dtype=np.float32),
                any_misclassified=np.ones(5, dtype=np.bool_),
                saturated=None,
                zero_gradient=None,
                scores={"another": given, "softmax-predictions": given},
                meta=OutcomeMeta(targets={"another": "rbf", "softmax-predictions": "softmax"}),
            ),
        )


@pytest.fixture
def recorded() -> RunRecord:
    return made_up_record().model_copy(
        update={"evaluations": (attacked("mnist", "softmax", "fgsm", HIGH, 2, digest=CELL),)}
    )


def test_right_and_wrong_answers_are_counted_apart(recorded: RunRecord, tmp_path: Path) -> None:
    write_outcome(tmp_path / "run")
    found = confidences(recorded, tmp_path / "run")[KEY]
    assert found.right.examples == 2
    assert found.right.counts[-1] == 1  # a confidence of 1 is in the last bin
    assert found.right.counts[10] == 1
    assert found.right.mean == pytest.approx(0.76)
    # What was out of budget is no mistake, and no right answer either.
    assert found.wrong.counts[-1] == found.wrong.examples == 2
    assert found.wrong.at_least_ninety == 1.0


def test_they_outlive_the_outcomes(recorded: RunRecord, tmp_path: Path) -> None:
    write_outcome(tmp_path / "run")
    found = confidences(recorded, tmp_path / "run")
    committed = tmp_path / "committed"
    committed.mkdir()
    (committed / CONFIDENCE_FILE).write_text(confidence_csv(found, recorded))
    assert confidences(recorded, committed) == found
    assert confidence_csv(confidences(recorded, committed), recorded) == confidence_csv(
        found, recorded
    )


def test_those_of_another_cell_are_not_taken(recorded: RunRecord, tmp_path: Path) -> None:
    write_outcome(tmp_path / "run")
    text = confidence_csv(confidences(recorded, tmp_path / "run"), recorded)
    (tmp_path / CONFIDENCE_FILE).write_text(text.replace(CELL, "an-older-cell"))
    assert confidences(recorded, tmp_path) == {}


def test_a_damaged_file_is_told(recorded: RunRecord, tmp_path: Path) -> None:
    (tmp_path / CONFIDENCE_FILE).write_text("dataset,model\nmnist,softmax\nmnist,softmax\n")
    with pytest.raises(
        RecordError, match=r"confidence\.csv.*no column 'attack'.*run the suite again"
    ):
        confidences(recorded, tmp_path)


def test_errors_alone_say_nothing_of_confidence(recorded: RunRecord, tmp_path: Path) -> None:
    write_outcome(tmp_path / "run")
    (row,) = recorded.evaluations
    alone = row.model_copy(update={"mean_confidence": None})
    quick = recorded.model_copy(update={"evaluations": (alone,)})
    assert confidences(recorded, tmp_path / "run")
    assert confidences(quick, tmp_path / "run") == {}


def test_no_answers_have_no_mean(recorded: RunRecord, tmp_path: Path) -> None:
    assert confidences(recorded, tmp_path) == {}
    header = confidence_csv({}, made_up_record()).split(",")
    assert len(header) == 9 + BINS
