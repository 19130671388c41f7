from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest

from gibbon.records.run import RunRecord
from gibbon.runner.folder_state.publish import Publish
from gibbon.runner.plan import load_model
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    """The planted attacks, two models and the dataset, registered."""
    planting = planted.Plant(monkeypatch)
    planting.dataset("squares", lambda request: planted.squares())
    planting.model("one", planted.rows(1))
    planting.model("two", planted.rows(2))
    planting.model("three", planted.rows(3))
    for name, kind in {
        "raises": planted.Raises,
        "raises-at-tenth": planted.RaisesAtTenth,
        "returns-nan": planted.ReturnsNaN,
        "leaves-budget": planted.LeavesBudget,
        "returns-inputs": planted.ReturnsInputs,
        "brightens": planted.Brightens,
        "flaky": planted.Flaky,
        "interrupts": planted.Interrupts,
    }.items():
        planting.attack(name, kind)
    return planting


@pytest.fixture
def code_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the code of models out of their digests."""
    monkeypatch.setattr(load_model, "model_code", lambda module: "")


@pytest.fixture
def run(plant: planted.Plant, tmp_path: Path) -> planted.Run:
    def run_planted(
        suite: Suite, folder: str = "run", *, publish: Publish | None = None, **settings: Any
    ) -> RunRecord:
        # The planted models are untrained, which an examination says of them.
        settings.setdefault("examination", False)
        return run_suite(
            suite,
            tmp_path / folder,
            settings=RunSettings(device="cpu", **settings),
            publish=publish,
        )

    return run_planted


@pytest.fixture
def suite() -> Callable[..., Suite]:
    """A suite on the planted dataset; attacks as dictionaries or names at epsilon 0.1."""

    def make(
        *attacks: dict[str, Any] | str,
        models: tuple[Any, ...] = ("one",),
        transfer: tuple[str, ...] = (),
        **rest: Any,
    ) -> Suite:
        written = {
            "name": "planted",
            "dataset": "squares",
            "models": list(models),
            "attacks": [
                {"name": each, "epsilon": "0.1"} if isinstance(each, str) else each
                for each in attacks
            ],
            **({"transfer": {"attacks": list(transfer)}} if transfer else {}),
            **rest,
        }
        return Suite.model_validate(written)

    return make
