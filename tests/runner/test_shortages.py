"""Memory that runs out: batches are halved, and the outcomes are the same."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
import pytest
import torch
from planted import Run
from pydantic.dataclasses import dataclass as checked
from same_outcomes import assert_same_outcomes, assert_same_records
from test_execute import MakeSuite, row, transfer
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack
from gibbon.core.errors import ModelError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel
from gibbon.models.classifier import Classifier
from gibbon.runner.run_progress.progress import SilentProgress
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings

# The planted shortages are in the models' code.
pytestmark = pytest.mark.usefixtures("code_left_out")

FITTING = 7
ATTACKS: list[Any] = [
    {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]},
    {"name": "pgd", "epsilon": "0.1", "steps": 3, "restarts": 2},
    {"name": "noise-uniform", "epsilon": "0.2"},
    {"name": "greedy", "epsilon": ["0.1", "0.2"]},
    {"name": "deepfool", "norm": "linf", "epsilon": ["0.05", "0.1"], "steps": 3},
    {"name": "bim", "epsilon": ["0.01", "0.02"], "steps": 3, "carried": True},
]


class Large(planted.Rows):
    """Needs more memory than there is for many examples at once, in one place."""

    def __init__(self, seed: int, *, when: Callable[[Tensor], bool], error: Exception) -> None:
        super().__init__(seed)
        self.when = when
        self.error = error

    @property
    def refused(self) -> int:
        """Number of calls without enough memory; counted elsewhere, since calls change nothing."""
        return REFUSED[id(self)]

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > FITTING and self.when(inputs):
            vars(sys.modules[__name__])["REFUSED"][id(self)] += 1
            raise self.error
        return super().forward(inputs)


REFUSED: Counter[int] = Counter()

# Of the machine, and no part of the attack: what an attack names is in its digest.
MEMORY = SimpleNamespace(short=False)


@checked(frozen=True, kw_only=True, config=STRICT)
class Greedy(Attack):
    """Asks the model once, then needs memory of its own, and changes its inputs on the way."""

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        classifier(inputs)
        if len(inputs) > FITTING and vars(sys.modules[__name__])["MEMORY"].short:
            inputs.zero_()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        yield (inputs + threat.radius).clamp(0, 1)


PLACES: dict[str, Callable[[Tensor], bool]] = {
    "everywhere": lambda inputs: True,
    "with a graph": lambda inputs: inputs.requires_grad,
    "without one": lambda inputs: not torch.is_grad_enabled(),
}
SHORT = torch.OutOfMemoryError("CUDA out of memory.")
CPU_SHORT = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")


@pytest.fixture
def roomy(plant: planted.Plant, monkeypatch: pytest.MonkeyPatch) -> planted.Plant:
    plant.attack("greedy", Greedy)
    monkeypatch.setattr(MEMORY, "short", False)
    return plant


@pytest.mark.parametrize(
    ("name", "place", "error"),
    [
        pytest.param("one", "everywhere", SHORT, marks=pytest.mark.slow),
        pytest.param("one", "with a graph", CPU_SHORT, marks=pytest.mark.slow),
        pytest.param("one", "without one", SHORT, marks=pytest.mark.slow),
        ("two", "without one", CPU_SHORT),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_where_memory_runs_out_changes_nothing(
    run: Run,
    suite: MakeSuite,
    roomy: planted.Plant,
    tmp_path: Path,
    name: str,
    place: str,
    error: Exception,
) -> None:
    asked = suite(*ATTACKS, models=("one", "two"), transfer=("fgsm", "greedy"))
    small = run(asked, "small", batch_size=FITTING)
    seed = {"one": 1, "two": 2}[name]
    roomy.model(name, lambda: planted.classifier(Large(seed, when=PLACES[place], error=error)))
    halved = run(asked, "halved")
    assert roomy.built[name][-1].module.refused > 0
    assert_same_records(halved, small)
    assert_same_outcomes(tmp_path / "halved", tmp_path / "small")


@pytest.mark.parametrize("place", PLACES)
def test_where_memory_runs_out_a_sweep_along_one_direction_is_the_same(
    run: Run, suite: MakeSuite, roomy: planted.Plant, tmp_path: Path, place: str
) -> None:
    asked = suite({"name": "fgsm", "epsilon": ["0.02", "0.05", "0.1"], "carried": True})
    small = run(asked, "small", batch_size=FITTING)
    roomy.model("one", lambda: planted.classifier(Large(1, when=PLACES[place], error=SHORT)))
    halved = run(asked, "halved")
    assert roomy.built["one"][-1].module.refused > 0
    assert_same_records(halved, small)
    assert_same_outcomes(tmp_path / "halved", tmp_path / "small")


def test_an_attack_that_needs_more_memory_is_given_less(
    run: Run, suite: MakeSuite, roomy: planted.Plant, tmp_path: Path, monkeypatch: Any
) -> None:
    asked = suite(*ATTACKS, models=("one", "two"), transfer=("greedy",))
    small = run(asked, "small", batch_size=FITTING)
    monkeypatch.setattr(MEMORY, "short", True)
    halved = run(asked, "halved")
    assert_same_records(halved, small)
    assert_same_outcomes(tmp_path / "halved", tmp_path / "small")


def test_a_shortage_in_the_middle_loses_nothing(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    """Somebody else takes the memory after the first batches: those are not computed again."""

    class Crowded(planted.Rows):
        asked = 0

        def forward(self, inputs: Tensor) -> Tensor:
            Crowded.asked += len(inputs)
            if Crowded.asked > 3 * planted.EXAMPLES and len(inputs) > FITTING:
                raise torch.OutOfMemoryError
            return super().forward(inputs)

    pgd = {"name": "pgd", "epsilon": "0.1", "steps": 5}
    whole = run(suite(pgd), "whole")
    plant.model("one", lambda: planted.classifier(Crowded(1)))
    run(suite(pgd), "planned", limit=1)
    Crowded.asked = -4 * planted.EXAMPLES  # planning takes some
    assert_same_records(run(suite(pgd), "crowded"), whole)
    assert_same_outcomes(tmp_path / "crowded", tmp_path / "whole")


def test_a_size_that_was_asked_for_is_kept_to(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model(
        "one", lambda: planted.classifier(Large(1, when=PLACES["with a graph"], error=SHORT))
    )
    record = run(suite("fgsm", "noise-sign"), batch_size=20)
    (failure,) = record.failures
    assert failure.error == (
        "MemoryShortageError: out of memory with 20 examples at a time: --batch-size auto tries "
        "smaller ones (CUDA out of memory.)"
    )
    assert row(record, "noise-sign").status == "done"


def test_a_target_that_is_too_large_for_the_size_asked_for_fails_alone(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    def late(inputs: Tensor) -> bool:
        return bool(inputs.max() > 0.9)

    plant.model("two", lambda: planted.classifier(Large(2, when=late, error=SHORT)))
    asked = suite({"name": "fgsm", "epsilon": "0.3"}, models=("one", "two"), transfer=("fgsm",))
    record = run(asked, batch_size=20)
    assert transfer(record, "one", "two").status == "failed"
    assert transfer(record, "one", "one").status == "done"
    assert "--batch-size auto" in record.failures[-1].error


def test_a_single_example_that_is_too_large_fails_its_cell_and_no_other(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    class Hopeless(Greedy):
        def propose(self, classifier: Classifier, inputs: Tensor, **rest: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    plant.attack("hopeless", checked(frozen=True, kw_only=True, config=STRICT)(Hopeless))
    record = run(suite("hopeless", "fgsm"))
    (failure,) = record.failures
    assert "out of memory with 1 example at a time" in failure.error
    assert row(record, "fgsm").status == "done"
    assert row(record, "none").status == "done"


def test_a_model_that_can_t_take_one_example_is_refused(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    class Hopeless(planted.Rows):
        def forward(self, inputs: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    plant.model("one", lambda: planted.classifier(Hopeless(1)))
    with pytest.raises(ModelError, match=r"models\[0\]: 'one': .*out of memory"):
        run(suite("fgsm"))


def test_the_user_is_told_of_a_smaller_batch(
    suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    class Listening(SilentProgress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    plant.model("one", lambda: planted.classifier(Large(1, when=PLACES["everywhere"], error=SHORT)))
    settings = RunSettings(device="cpu")
    progress = Listening()
    run_suite(suite("fgsm"), tmp_path / "run", settings=settings, progress=progress)
    assert progress.notes[0] == (
        "one, fgsm: out of memory with 60 examples at a time, continuing with 30"
    )
    assert [text.split()[-1] for text in progress.notes] == ["30", "15", "7"]
