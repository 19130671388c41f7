"""Models without gradients: targets of all, sources of what needs none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from planted import Run
from rich.console import Console
from test_execute import MakeSuite, row, transfer

from gibbon.core.errors import ModelError
from gibbon.report import print_tables, write_report

REASON = "ONNX Runtime gives no gradients"


class Closed(planted.Rows):
    """Answers, and gives no gradient."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(inputs)


def closed(reason: str) -> planted.Classifier:
    made = planted.classifier(Closed(2))
    made.forward_only = reason
    return made


@pytest.fixture(params=[REASON, ""], ids=["declared", "found"])
def reason(request: pytest.FixtureRequest, plant: planted.Plant) -> str:
    plant.model("two", lambda: closed(request.param))
    return request.param or "its outputs have no gradient in its inputs"


def test_what_needs_gradients_is_refused_with_the_reason(
    run: Run, suite: MakeSuite, reason: str, tmp_path: Path
) -> None:
    refusal = rf"models\[1\]: 'two': {reason}: attack 'fgsm' needs them; .*transfer"
    with pytest.raises(ModelError, match=refusal):
        run(suite("noise-sign", "fgsm", models=("one", "two")))
    with pytest.raises(ModelError, match="attack 'fgsm' needs them"):  # nobody has gradients
        run(suite("fgsm", models=("two",), transfer=("fgsm",)))
    assert not (tmp_path / "run").exists()


def test_what_needs_none_works(run: Run, suite: MakeSuite, reason: str) -> None:
    record = run(suite("noise-sign", "noise-uniform", models=("two",)))
    assert {each.status for each in record.evaluations} == {"done"}
    assert {each.kind for each in record.flags} == {"not-examined", "noise-only"}


@pytest.mark.parametrize("places", [None, 1])
def test_a_target_of_transfer_is_no_source(
    run: Run, suite: MakeSuite, reason: str, places: int | None, tmp_path: Path
) -> None:
    attacks: list[Any] = [
        {"name": "fgsm", "epsilon": ["0.1", "0.2"]},
        {"name": "noise-sign", "epsilon": "0.1"},
    ]
    asked = suite(*attacks, models=("one", "two", "three"), transfer=("fgsm", "noise-sign"))
    record = run(asked, models_in_memory=places, publish=write_report)
    assert record.status == "done"
    assert {each.source for each in record.transfers if each.attack == "fgsm"} == {"one", "three"}
    assert {each.target for each in record.transfers if each.attack == "fgsm"} == {
        "one",
        "two",
        "three",
    }
    sources = {each.source for each in record.transfers if each.attack == "noise-sign"}
    assert sources == {"one", "two", "three"}
    said = f"squares, two, fgsm: no examples are made on it, only on the others: {reason}"
    assert said in map(str, record.flags)
    assert row(record, "none", "two").status == "done"
    assert not [each for each in record.evaluations if (each.model, each.attack) == ("two", "fgsm")]
    told = io.StringIO()
    print_tables(record, Console(file=told, width=200))
    assert "squares, two, fgsm: no examples are made on it" in told.getvalue()
    assert "two, fgsm: no examples" in (tmp_path / "run" / "tables.md").read_text()


def test_scored_alike_with_and_without_gradients(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    asked = suite({"name": "fgsm", "epsilon": "0.3"}, models=("one", "two"), transfer=("fgsm",))
    with_gradients = transfer(run(asked, "with"), "one", "two")
    plant.model("two", lambda: closed(REASON))
    without = transfer(run(asked, "without"), "one", "two")
    assert without.error == with_gradients.error
    assert without.error_given_source_misclassified is not None
