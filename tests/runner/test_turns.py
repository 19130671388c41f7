"""Models that don't fit into memory at once: the same results, with few models there at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from planted import Run
from same_outcomes import assert_same_outcomes, assert_same_records
from test_execute import Counted, MakeSuite, transfer

from gibbon.core.errors import SpecError
from gibbon.models.classifier import Classifier
from gibbon.models.sources import BuiltModel
from gibbon.runner.device import model_pool
from gibbon.runner.job_results import target_scores
from gibbon.runner.plan.planned import Supplied
from gibbon.runner.run_folder import CANDIDATES, RunFolder
from gibbon.runner.run_suite import run_suite
from gibbon.runner.settings import RunSettings
from gibbon.specs.suite import Suite

# The planted interruptions and shortages are in the models' code.
pytestmark = pytest.mark.usefixtures("code_left_out")

NAMES = ("one", "two", "three")
MANY = tuple(f"model-{number}" for number in range(20))
ATTACKS: list[Any] = [
    {"name": "fgsm", "epsilon": ["0.05", "0.1", "0.2"]},
    {"name": "pgd", "epsilon": "0.1", "steps": 3, "restarts": 2},
    {"name": "noise-uniform", "epsilon": "0.2"},
    {"name": "deepfool", "norm": "linf", "epsilon": ["0.05", "0.1"], "steps": 3},
]


class Watched:
    """Follows how many models are there, and how often they were built and evaluated."""

    def __init__(self, plant: planted.Plant, patch: pytest.MonkeyPatch) -> None:
        self.built: list[str] = []
        self.entered: list[str] = []
        self.here = self.most = 0
        names: dict[int, str] = {}

        def builder(name: str, seed: int) -> Callable[[], Classifier]:
            def build() -> Classifier:
                self.built.append(name)
                made = planted.classifier(planted.Rows(seed))
                names[id(made.module)] = name
                return made

            return build

        for seed, name in enumerate((*NAMES, *MANY), 1):
            plant.model(name, builder(name, seed))
        enter, leave = model_pool.ModelPool._try_enter, model_pool.ModelPool._leave

        def entering(self_: model_pool.ModelPool, handle: model_pool.Handle, **rest: Any) -> bool:
            self.entered.append(names[id(handle.classifier.module)])
            self.here += 1
            self.most = max(self.most, self.here)
            return enter(self_, handle, **rest)

        def leaving(self_: model_pool.ModelPool, handle: model_pool.Handle) -> None:
            self.here -= 1
            leave(self_, handle)

        patch.setattr(model_pool.ModelPool, "_try_enter", entering)
        patch.setattr(model_pool.ModelPool, "_leave", leaving)


@pytest.fixture
def watched(plant: planted.Plant, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(plant, monkeypatch)


@pytest.fixture
def asked(suite: MakeSuite) -> Suite:
    return suite(*ATTACKS, models=NAMES, transfer=("fgsm", "noise-uniform", "deepfool"))


@pytest.mark.parametrize("places", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_results_are_the_same(
    run: Run, asked: Suite, watched: Watched, tmp_path: Path, places: int
) -> None:
    whole = run(asked, "whole", batch_size=25)
    assert watched.entered == list(NAMES)
    watched.entered.clear()
    watched.built.clear()
    watched.most = 0
    turned = run(asked, "turned", batch_size=25, models_in_memory=places)
    assert_same_records(turned, whole)
    assert_same_outcomes(tmp_path / "turned", tmp_path / "whole")
    assert watched.most == places
    assert watched.here == 0
    # Once for planning, as a source, as a target, for its survivors and for its bounds; what is
    # there still is not built again.
    assert max(watched.built.count(name) for name in NAMES) <= 5
    assert max(watched.entered.count(name) for name in NAMES) <= 3
    assert not (tmp_path / "turned" / CANDIDATES).exists()


@pytest.mark.parametrize(
    "places", [5, *(pytest.param(places, marks=pytest.mark.slow) for places in (1, 20))]
)
def test_a_transfer_matrix_loads_a_model_twice_at_most(
    run: Run, suite: MakeSuite, watched: Watched, places: int
) -> None:
    """Once as a source, once as a target; those that are there when targets begin, once."""
    asked = suite({"name": "fgsm", "epsilon": "0.1"}, models=MANY, transfer=("fgsm",))
    record = run(asked, batch_size=60, models_in_memory=places, examination=False, certify="none")
    assert record.status == "done"
    assert sum(each.status == "done" for each in record.transfers) == len(MANY) ** 2
    assert watched.most == places
    fewest = len(MANY) if places == len(MANY) else 2 * len(MANY) - places
    assert len(watched.entered) == fewest


def test_progress_reaches_its_end(asked: Suite, watched: Watched, tmp_path: Path) -> None:
    progress = Counted()
    settings = RunSettings(device="cpu", examination=False, batch_size=25, models_in_memory=1)
    run_suite(asked, tmp_path / "run", settings=settings, progress=progress)
    assert progress.done == progress.work > 0


def test_without_a_number_as_many_as_fit_are_there(
    run: Run, asked: Suite, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * planted.CLASSES * planted.COORDINATES * 4  # weights, and the copy beside them
    monkeypatch.setattr(
        model_pool, "free_memory", lambda device: int(2.5 * size / model_pool.SHARE)
    )
    whole = run(asked, "whole", batch_size=25, models_in_memory=3)
    watched.most = 0
    turned = run(asked, "turned", batch_size=25)
    assert watched.most == 2
    assert_same_records(turned, whole)


def test_a_small_disk_makes_more_turns(
    run: Run, asked: Suite, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(asked, "whole", batch_size=25)
    monkeypatch.setattr(RunFolder, "room_for_candidates", lambda folder: 0)
    watched.entered.clear()
    turned = run(asked, "turned", batch_size=25, models_in_memory=1)
    assert_same_records(turned, whole)
    assert max(watched.entered.count(name) for name in NAMES) > 2


@pytest.mark.parametrize(
    "moment",
    [10, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (1, 6, 15))],
)
def test_an_interrupted_run_goes_on(
    run: Run,
    asked: Suite,
    watched: Watched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    whole = run(asked, "whole", batch_size=25)
    lived = 0

    def interrupted(what: Callable[..., Any]) -> Callable[..., Any]:
        def tick(*args: Any, **rest: Any) -> Any:
            nonlocal lived
            lived += 1
            if lived == 3 * moment:
                raise KeyboardInterrupt
            return what(*args, **rest)

        return tick

    with monkeypatch.context() as patch:
        patch.setattr(target_scores, "ask", interrupted(target_scores.ask))
        patch.setattr(RunFolder, "write", interrupted(RunFolder.write))
        patch.setattr(planted.Rows, "forward", interrupted(planted.Rows.forward))
        with pytest.raises(KeyboardInterrupt):
            run(asked, "turned", batch_size=25, models_in_memory=1, save_every=0.0)
    assert not (tmp_path / "turned" / CANDIDATES).exists()
    assert watched.here == 0
    again = run(asked, "turned", batch_size=25, models_in_memory=1)
    assert_same_records(again, whole)
    assert_same_outcomes(tmp_path / "turned", tmp_path / "whole")


def test_what_a_killed_run_left_is_removed(run: Run, asked: Suite, tmp_path: Path) -> None:
    run(asked, batch_size=25)
    left = tmp_path / "run" / CANDIDATES
    left.mkdir()
    (left / "cell.npy").write_bytes(b"half")
    run(asked, batch_size=25)
    assert not left.exists()


def test_a_model_added_later_is_scored_in_turns_too(
    run: Run, suite: MakeSuite, watched: Watched, tmp_path: Path
) -> None:
    few = suite(*ATTACKS, models=NAMES[:2], transfer=("fgsm",))
    many = suite(*ATTACKS, models=NAMES, transfer=("fgsm",))
    whole = run(many, "whole", batch_size=25)
    run(few, "turned", batch_size=25)
    turned = run(many, "turned", batch_size=25, models_in_memory=1)
    assert_same_records(turned, whole)


def test_failures_are_the_same(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    """A source that fails at one epsilon, and a target that answers NaN."""
    plant.model("two", lambda: planted.classifier(planted.NaNBeyond(2)))
    asked = suite(
        {"name": "raises-at-tenth", "epsilon": ["0.1", "0.3"]},
        {"name": "fgsm", "epsilon": ["0.1", "0.4"]},
        models=NAMES,
        transfer=("raises-at-tenth", "fgsm"),
    )
    whole = run(asked, "whole", batch_size=25)
    turned = run(asked, "turned", batch_size=25, models_in_memory=1)
    assert transfer_states(whole) == transfer_states(turned)
    assert "failed" in transfer_states(turned).values()
    assert_same_records(turned, whole)
    assert_same_outcomes(tmp_path / "turned", tmp_path / "whole")
    told = [[(each.model, each.attack, each.error) for each in x.failures] for x in (whole, turned)]
    assert sorted(told[0]) == sorted(told[1])


def transfer_states(record: Any) -> dict[tuple[str, ...], str]:
    return {
        (each.source, each.target, each.attack, str(each.epsilon)): each.status
        for each in record.transfers
    }


def test_a_model_that_can_t_be_made_again_fails_what_needs_it(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    """Its file changes between planning and execution, or its factory is random."""
    plant.model(
        "two", lambda: planted.classifier(planted.Rows(2 + len(plant.built.get("two", []))))
    )
    asked = suite({"name": "fgsm", "epsilon": "0.1"}, models=("one", "two"), transfer=("fgsm",))
    record = run(asked, batch_size=25, models_in_memory=1)
    assert transfer(record, "one", "one").status == "done"
    assert transfer(record, "one", "two").status == "failed"
    assert any("built again it has other weights" in each.error for each in record.failures)
    assert run(asked, "whole", batch_size=25, models_in_memory=2).status == "done"


def test_memory_that_runs_out_on_a_target_in_turn_is_halved(
    run: Run, asked: Suite, plant: planted.Plant, tmp_path: Path
) -> None:
    class Large(planted.Rows):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if len(inputs) > 7:
                raise torch.OutOfMemoryError
            return super().forward(inputs)

    small = run(asked, "small", batch_size=7)
    plant.model("three", lambda: planted.classifier(Large(3)))
    turned = run(asked, "turned", models_in_memory=1)
    assert_same_records(turned, small)
    assert_same_outcomes(tmp_path / "turned", tmp_path / "small")


def test_models_of_the_caller_share_parts_and_come_back(
    suite: MakeSuite, plant: planted.Plant, tmp_path: Path
) -> None:
    trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(16), torch.nn.Dropout())
    heads = [torch.nn.Linear(16, 3) for _ in NAMES]
    modules = [torch.nn.Sequential(trunk, head) for head in heads]
    trunk[1].eval()
    supplied = Supplied(
        models={
            name: BuiltModel(planted.classifier(module), name, rebuilds=False)
            for name, module in zip(NAMES, modules, strict=True)
        },
        datasets={"squares": planted.squares()},
    )
    asked = suite(*ATTACKS, models=NAMES, transfer=("fgsm",))
    modes = [each.training for module in modules for each in module.modules()]
    records = [
        run_suite(
            asked,
            tmp_path / f"run{places}",
            settings=RunSettings(
                device="cpu", examination=False, batch_size=25, models_in_memory=places
            ),
            supplied=supplied,
        )
        for places in (None, 1, 2)
    ]
    assert_same_records(records[0], records[1])
    assert_same_records(records[0], records[2])
    assert [each.training for module in modules for each in module.modules()] == modes
    assert all(each.requires_grad for module in modules for each in module.parameters())


def test_fewer_than_one_model_is_refused(run: Run, asked: Suite) -> None:
    with pytest.raises(SpecError, match="models_in_memory: must be at least 1, got 0"):
        run(asked, models_in_memory=0)
