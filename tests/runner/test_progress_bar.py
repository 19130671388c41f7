"""What a training says on the way."""

from __future__ import annotations

import re

import pytest

from gibbon.models.registry import TrainingProgress
from gibbon.runner.progress_bar import training_bar


def test_a_second_training_that_is_longer_than_was_thought_is_not_done_before_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gibbon.runner.progress_bar.QUIET_SECONDS", -1.0)
    with training_bar("maxout") as report:
        report(TrainingProgress(step=100, steps=200, epoch=10, epochs=20, loss=0.2))
        report(TrainingProgress(step=230, steps=240, epoch=19, epochs=20, loss=0.1))
    said = capsys.readouterr().err
    assert re.findall(r"(\d+)% done", said) == ["50", "96"]
    assert "-" not in said
