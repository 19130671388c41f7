from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from operations import Calls

import tools.records.training_speed as module
from gibbon_zoo.recipe import shipped_recipe
from tools.records.training_speed import lowest, main, products, speed_table, training


def test_the_lowest_time_after_the_first_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 1, 0, 5, 0, 7, 0, 9, 0, 8, 0, 6])
    monkeypatch.setattr(module.time, "process_time", lambda: next(moments))
    done: list[str] = []
    assert lowest(lambda: done.append("a"), lambda: done.append("b"), rounds=2) == [7, 6]
    assert done == ["a", "b"] * 3


def shapes_of_products(work: Callable[[], object]) -> list[list[int]]:
    products = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
    with Calls() as calls:
        work()
    pairs = [args[-2:] for operation, args, _ in calls.made if operation in products]
    return sorted(sorted((*one.shape, other.shape[1])) for one, other in pairs)


@pytest.mark.parametrize(("model", "count"), [("maxout", 8), ("maxout-adv", 17)])
def test_the_products_alone_are_those_of_a_training(model: str, count: int) -> None:
    recipe = shipped_recipe(model)
    inputs = torch.rand(2 * recipe.batch_size, 1, 28, 28)
    labels = torch.arange(len(inputs)) % 10
    alone = shapes_of_products(products(recipe, steps=2))
    assert len(alone) == 2 * count
    assert shapes_of_products(training(recipe, inputs, labels)) == alone


def test_a_record_has_both_recipes_and_makes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "new" / "record.json"
    monkeypatch.setattr(
        "sys.argv", ["training_speed", "--record", str(record), "--rounds", "1", "--steps", "2"]
    )
    assert main() == 0
    content = json.loads(record.read_text())
    assert [row["model"] for row in content["rows"]] == ["maxout", "maxout-adv"]
    assert all(row[part] > 0 for row in content["rows"] for part in ("training", "products"))
    lines = speed_table(record).splitlines()
    assert lines[2].startswith("| plain (`maxout`)")
    assert "the lowest of 1 rounds of 2 steps" in lines[-1]
