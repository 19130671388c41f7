"""What a training says on the way."""

from __future__ import annotations

import re

import pytest

from gibbon.models.registry import TrainingProgress
from gibbon.runner.run_progress.training_bar import seeds_bar, training_bar
from gibbon.runner.train_seeds import ENDED


def test_a_second_training_that_is_longer_than_was_thought_is_not_done_before_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon.runner.run_progress.training_bar.QUIET_SECONDS", -1.0)
    with training_bar("maxout") as report:
        report(TrainingProgress(step=100, steps=200, epoch=10, epochs=20, loss=0.2))
        report(TrainingProgress(step=230, steps=240, epoch=19, epochs=20, loss=0.1))
    said = capsys.readouterr().err
    assert re.findall(r"(\d+)% done", said) == ["50", "96"]
    assert "-" not in said


@pytest.mark.parametrize("may_stop", [False, True])
def test_the_time_left_of_a_training_that_may_stop_early_is_the_most(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, may_stop: bool
) -> None:
    monkeypatch.setattr("gibbon.runner.run_progress.training_bar.QUIET_SECONDS", -1.0)
    with training_bar("maxout") as report:
        for step in (10, 20):
            report(TrainingProgress(step, 100, epoch=1, epochs=2, loss=0.5, may_stop=may_stop))
    said = capsys.readouterr().err
    assert (" left at most (maxout" in said) == may_stop
    assert (" left (maxout" in said) != may_stop


def test_several_trainings_are_summed_and_one_that_stops_early_counts_as_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon.runner.run_progress.training_bar.QUIET_SECONDS", -1.0)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(
        "gibbon.runner.run_progress.training_bar.time.monotonic", lambda: float(next(clock))
    )

    def progress(step: int) -> TrainingProgress:
        return TrainingProgress(step=step, steps=100, epoch=1, epochs=2, loss=0.5)

    with seeds_bar("maxout", [4, 7]) as report:
        report(4, progress(10))  # continued from a checkpoint: these steps say nothing of the speed
        report(4, progress(20))
        report(4, progress(50))
        report(4, ENDED)
        report(7, progress(25))
    lines = capsys.readouterr().err.splitlines()
    assert [re.findall(r"(\d+)% done", line) for line in lines] == [["5"], ["10"], ["25"], ["50"]]
    assert "left" not in lines[0]
    assert all("about" in line for line in lines[1:])
    assert ["seed 4" in line for line in lines] == [True, True, True, False]
    assert "seed 7, epoch 1/2, loss 0.5000" in lines[3]
