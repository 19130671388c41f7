from __future__ import annotations

import json
from pathlib import Path

import pytest

import tools.records.training_speed as module
from tools.records.training_speed import lowest, main, speed_table


def test_the_lowest_time_after_the_first_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 1, 0, 5, 0, 7, 0, 9, 0, 8, 0, 6])
    monkeypatch.setattr(module.time, "process_time", lambda: next(moments))
    done: list[str] = []
    assert lowest(lambda: done.append("a"), lambda: done.append("b"), rounds=2) == [7, 6]
    assert done == ["a", "b"] * 3


def test_a_training_takes_longer_than_its_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "new" / "record.json"
    monkeypatch.setattr(
        "sys.argv", ["training_speed", "--record", str(record), "--rounds", "1", "--steps", "2"]
    )
    assert main() == 0
    content = json.loads(record.read_text())
    assert [row["model"] for row in content["rows"]] == ["maxout", "maxout-adv"]
    assert all(row["training"] > row["products"] > 0 for row in content["rows"])
    plain, adversarial = (row["products"] for row in content["rows"])
    assert adversarial > plain
    lines = speed_table(record).splitlines()
    assert lines[2].startswith("| plain (`maxout`)")
    assert "the lowest of 1 rounds of 2 steps" in lines[-1]
