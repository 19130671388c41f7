"""Curves that are known at every epsilon: read from outcomes, drawn as steps, equal at each ε."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up import EXAMPLES, HIGH, LOW, attacked, clean, searching_record
from matplotlib.figure import Figure
from test_report_tensorboard import curve, read_back

from gibbon.core.threat import Verdict
from gibbon.metrics.nearest import Curve, error_curve, error_within
from gibbon.records.outcomes import Outcome, OutcomeMeta, TargetOutcome
from gibbon.records.run import RunRecord
from gibbon.report.content.chart_data.curves import panels
from gibbon.report.content.chart_data.distance_curves import whole_curves
from gibbon.report.figures.plots import error_curves, error_curves_png
from gibbon.report.tensorboard.writer import write_tensorboard
from gibbon.runner.run_folder import RunFolder
from gibbon.specs.decoding import parse_suite

SUITE = """
name = "searches"
dataset = "mnist"
models = ["softmax"]
[[attacks]]
name = "fmn"
epsilon = ["8/255", "0.25"]
[[attacks]]
name = "fgsm"
epsilon = "0.25"
"""
DIGEST = "fmn-digest"
KEY = ("mnist", "softmax", "fmn")
NEAREST = np.linspace(-0.04, 0.4, EXAMPLES, dtype=np.float32).clip(min=0)
NEAREST[-100:] = np.nan


def outcome(nearest: np.ndarray | None) -> Outcome:
    return Outcome(
        example_id=np.arange(EXAMPLES),
        label=np.zeros(EXAMPLES, dtype=np.int32),
        verdict=np.full(EXAMPLES, Verdict.VALID, dtype=np.int8),
        distance=np.zeros(EXAMPLES, dtype=np.float32),
        any_misclassified=np.zeros(EXAMPLES, dtype=np.bool_),
        saturated=None,
        zero_gradient=None,
        scores={
            "softmax": TargetOutcome(
                np.zeros(EXAMPLES, dtype=np.int32), np.ones(EXAMPLES, dtype=np.float32)
            )
        },
        meta=OutcomeMeta(targets={"softmax": "softmax"}),
        nearest=nearest,
    )


def within(epsilon: float) -> float:
    error = error_within(NEAREST, epsilon)
    assert error is not None
    return error


@pytest.fixture
def searched() -> RunRecord:
    rows = [
        attacked(
            "mnist",
            "softmax",
            "fmn",
            epsilon,
            round(within(float(epsilon)) * EXAMPLES),
            nearest_found=900,
            digest=DIGEST,
        )
        for epsilon in (LOW, HIGH)
    ]
    return searching_record().model_copy(
        update={
            "suite": parse_suite(SUITE, where="searches.toml"),
            "evaluations": (
                clean("mnist", "softmax", confidence=0.61),
                *rows,
                attacked("mnist", "softmax", "fgsm", HIGH, 999),
            ),
            "members": (),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunFolder.open(tmp_path / "run", suite="searches") as opened:
        opened.write(DIGEST, outcome(NEAREST))
    return tmp_path / "run"


def test_curves_are_read_from_the_outcomes_that_are_there(
    searched: RunRecord, folder: Path, tmp_path: Path
) -> None:
    found = whole_curves(searched, folder)
    assert found.keys() == {KEY}
    for each in searched.evaluations:
        if each.attack == "fmn":
            assert found[KEY].at(float(each.epsilon)) == each.adversarial_error
    assert whole_curves(searched, tmp_path / "elsewhere") == {}


def test_an_outcome_without_distances_gives_no_curve(searched: RunRecord, folder: Path) -> None:
    (folder / "outcomes" / f"{DIGEST}.parquet").unlink()
    run_file = folder / "run.json"
    run_file.write_text(searched.model_dump_json())
    with RunFolder.open(folder, suite="searches") as opened:
        opened.write(DIGEST, outcome(None))
    assert whole_curves(searched, folder) == {}


def lines(figure: Figure) -> list[np.ndarray]:
    (axis, *_) = figure.axes
    return [np.asarray(each.get_xydata()) for each in axis.get_lines() if len(each.get_xdata())]


def test_steps_go_through_the_points(searched: RunRecord) -> None:
    whole = {KEY: error_curve(NEAREST)}
    (panel,) = panels(searched, whole=whole)
    assert panel.attack == "fmn"
    steps, points = lines(error_curves((panel,)))
    assert len(steps) > len(points) == 3
    assert (np.diff(steps[:, 0]) >= 0).all()
    assert (np.diff(steps[:, 1]) >= 0).all()
    for epsilon, percentage in points[1:]:
        before = steps[steps[:, 0] <= epsilon + 1e-9]
        assert before[-1, 1] == pytest.approx(percentage)
    # Up to where nearly all that was found is within.
    assert steps[-1, 0] > 0.25
    assert steps[-1, 1] >= 0.95 * 90


def test_one_epsilon_is_enough_for_a_whole_curve(searched: RunRecord) -> None:
    suite = parse_suite(SUITE.replace('["8/255", "0.25"]', '"0.25"'), where="searches.toml")
    single = searched.model_copy(update={"suite": suite})
    assert panels(single) == ()
    assert error_curves_png(single) is None
    whole = {KEY: error_curve(NEAREST)}
    (panel,) = panels(single, whole=whole)
    assert panel.whole.keys() == {"softmax"}
    assert error_curves_png(single, whole=whole) == error_curves_png(single, whole=whole)


def test_a_search_that_found_nothing_is_drawn(searched: RunRecord) -> None:
    nothing = {KEY: error_curve(np.full(EXAMPLES, np.nan, dtype=np.float32))}
    steps, _ = lines(error_curves(panels(searched, whole=nothing)))
    assert steps[:, 1].tolist() == [0.0, 0.0]


def test_pictures_of_records_alone_keep_their_digests(searched: RunRecord) -> None:
    """Those that are committed carry it, and were made before there were whole curves."""
    (panel,) = panels(searched)
    assert repr(panel) == f"Panel(dataset='mnist', attack='fmn', curves={panel.curves!r})"


@pytest.mark.parametrize("count", [3, 5000])
def test_tensorboard_holds_the_curve_at_its_steps(
    searched: RunRecord, tmp_path: Path, count: int
) -> None:
    nearest = np.linspace(0, 40, count, dtype=np.float32)
    whole: dict[tuple[str, str, str], Curve] = {KEY: error_curve(nearest)}
    write_tensorboard(searched, tmp_path / "tensorboard", whole=whole)
    points = curve(read_back(tmp_path / "tensorboard"), "mnist/softmax", "error_within/fmn")
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == 40_000
    assert 3 <= len(steps) <= 202
    for step, value in points:
        assert value == error_within(nearest, step / 1000)
