"""The zoo's illustrations: what the figures say is what the models do."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from gibbon.core.errors import SpecError
from gibbon.records.illustration import illustrations
from gibbon.specs.suite import ModelSpec
from tools.zoo.illustrate import addition, linear_model, main, sweep


def test_the_attack_follows_the_sign_of_the_weights() -> None:
    made = linear_model()
    moved = made.attacked - made.clean / np.float32(255)
    away = np.where(made.label == 0, 1, -1)[:, None, None] * np.sign(made.weights)
    np.testing.assert_allclose(moved, 0.25 * away, atol=1e-6)
    assert made.clean_error < 0.03 < 0.97 < made.attacked_error
    assert sorted(made.label.tolist()) == made.label.tolist()
    assert {0, 1} == set(made.label.tolist())


def test_the_sweep_goes_through_the_clean_example() -> None:
    made = sweep("maxout")
    middle = int(np.flatnonzero(made.epsilons == 0)[0])
    assert made.correct[middle]
    assert not made.correct[0]
    assert not made.correct[-1]
    assert (made.epsilons[0], made.epsilons[-1]) == (-10, 10)
    # Far out a piecewise linear network is linear: its logits are nearly straight lines.
    bend = np.abs(np.diff(made.logits, n=2, axis=0))
    assert bend[-50:].max() < 0.2 * bend.max()


def test_the_command_writes_what_a_report_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 0
    assert [each.kind for each in illustrations(tmp_path)] == ["linear", "filters", "sweep"]
    assert "sweep.npz" in capsys.readouterr().out


def test_a_photograph_without_its_class_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--photograph", "a.png"]) == 2
    assert "--truth" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "rnu")]) == 2
    assert "rnu: is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_photograph_too_large_to_be_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (40, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("tools.zoo.illustrate._efficientnet", lambda: ModelSpec(name="tiny"))
    monkeypatch.setattr("tools.zoo.illustrate.build_model", MagicMock())
    with pytest.raises(SpecError, match=r"huge\.png: Image size \(1200 pixels\) exceeds"):
        addition(tmp_path / "huge.png", truth="espresso", credit="")
