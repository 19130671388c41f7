"""Lines of progress: planned work with the time left, and what follows it in its own words."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from gibbon import evaluate
from gibbon.runner.run_progress import progress_bar
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_progress.progress_bar import RunProgress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(progress_bar, "QUIET_SECONDS", -1.0)
    return io.StringIO()


def test_work_is_given_with_the_time_left_until_it_is_done(lines: io.StringIO) -> None:
    shown = RunProgress(Console(file=lines))
    shown.start(work=10, cells=1, reused=0)
    shown.advance(4, doing="fgsm")
    shown.advance(6, doing="fgsm")
    shown.advance(0, doing="bounds: 3 of [9] examples")
    assert lines.getvalue().splitlines()[1:] == [
        "40% done, about 0 s left (fgsm)",
        "fgsm",
        "bounds: 3 of [9] examples",
    ]


def test_what_follows_is_shown_if_nothing_was_planned(lines: io.StringIO) -> None:
    shown = RunProgress(Console(file=lines))
    shown.start(work=0, cells=0, reused=3)
    shown.advance(0, doing="bounds: 3 of 9 examples")
    assert lines.getvalue().splitlines()[1:] == ["bounds: 3 of 9 examples"]


def test_bounds_say_how_many_examples_are_left() -> None:
    class Heard(SilentProgress):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def advance(self, work: int, *, doing: str) -> None:
            self.lines.append(doing)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.rand(100, 1, 4, 4)
    data = inputs, net(inputs).argmax(1)
    heard = Heard()
    evaluate(
        net, data, attack="fgsm", epsilon=0.001, certify="all", examination=False, progress=heard
    )
    of_bounds = [line for line in heard.lines if "bounds at epsilon 0.001" in line]
    assert of_bounds
    assert all(" examples, about " in line for line in of_bounds)
