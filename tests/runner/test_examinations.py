"""Examinations in runs: what they cost, where they are stored, what they leave as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from planted import Run
from test_execute import MakeSuite
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.core.frames import REPORT
from gibbon.datasets.base import Batch
from gibbon.diagnostics.examination import examine as examine_module
from gibbon.diagnostics.examination.examine import FULL_BUDGET, Candidates, budget_of_run, examine
from gibbon.models.classifier import Classifier
from gibbon.records.checksums import checked_content
from gibbon.records.examination import EXAMINATIONS, Examination, read_examination
from gibbon.records.run import RunRecord
from gibbon.runner.execute.batch import run_batch
from gibbon.runner.executors import in_process
from gibbon.runner.shards.kept_file import KEPT_FILE

CLASSES = 3
PGD20 = {"name": "pgd", "epsilon": "0.1", "steps": 20}


def learnt(*, seed: int = 0) -> nn.Module:
    """A network that tells the planted squares apart, and is smooth."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, CLASSES))
    data = planted.squares(examples=300)
    batch = data.batch(torch.arange(300).numpy())
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(batch.inputs), batch.labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net


class Counted(nn.Module):
    """Counts the examples of forward and backward passes."""

    passes = 0

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        Counted.passes += len(inputs)
        outputs: Tensor = self.net(inputs)
        if outputs.requires_grad:
            outputs.register_hook(self.back)  # type: ignore[no-untyped-call]
        return outputs

    @staticmethod
    def back(gradient: Tensor) -> None:
        Counted.passes += len(gradient)


@pytest.fixture
def net() -> nn.Module:
    return learnt()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    batch = planted.squares().batch(torch.arange(planted.EXAMPLES).numpy())
    return batch.inputs, batch.labels


def classifier(module: nn.Module) -> Classifier:
    return planted.classifier(module)


def the_batch(data: tuple[Tensor, Tensor], count: int = planted.EXAMPLES) -> Batch:
    return Batch(torch.arange(count), data[0][:count], data[1][:count])


@pytest.mark.parametrize(
    ("attack", "examples"),
    [
        ({"name": "fgsm", "epsilon": 0.1}, 20),
        ({"name": "pgd", "epsilon": 0.1, "steps": 10}, 60),
        ({"name": "pgd", "epsilon": 0.1, "steps": 4, "keep": "first-success"}, 60),
        ({"name": "noise-sign", "epsilon": 0.1}, 60),
        ({"name": "autoattack", "epsilon": 0.01, "steps": 2, "queries": 2}, 60),
        ({"name": "deepfool", "norm": "linf", "epsilon": 0.1}, 60),
        ({"name": "fgsm", "epsilon": [0.1, 0.2, 0.3]}, 60),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else str(value),
)
def test_an_examination_makes_a_tenth_of_the_passes_of_a_small_run_at_most(
    net: nn.Module, data: tuple[Tensor, Tensor], attack: dict[str, Any], examples: int
) -> None:
    passes = {}
    for examination in (False, True):
        Counted.passes = 0
        inputs, labels = data
        given = (inputs[:examples], labels[:examples])
        found = evaluate(Counted(net), given, attack=attack, examination=examination)
        passes[examination] = Counted.passes
        checks = (*found.record.examinations, *found.record.survivors)
        made = sum(each.passes for each in checks)
        own = sum(each.forward_passes + each.backward_passes for each in found.record.evaluations)
    assert passes[True] - passes[False] == made <= own / 10


def test_an_examination_makes_a_twentieth_of_pgd_20_on_1000_at_most(net: nn.Module) -> None:
    assert FULL_BUDGET <= 0.05 * 41 * 1000
    assert budget_of_run(10**9) == FULL_BUDGET
    data = planted.squares(examples=1000)
    batch = data.batch(torch.arange(256).numpy())
    for module in (net, planted.Rows(5)):  # the second makes many errors
        Counted.passes = 0
        found = examine(classifier(Counted(module)), batch)
        assert Counted.passes == found.passes <= FULL_BUDGET


def test_an_examination_is_stored_and_made_once(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path, net: nn.Module
) -> None:
    plant.model("one", lambda: classifier(net))
    first = run(suite(PGD20), examination=True)
    (made,) = first.examinations
    (file,) = (tmp_path / "run" / EXAMINATIONS).glob("[!s]*.json")
    assert Examination.model_validate(checked_content(file.read_bytes())) == made
    assert made.at_candidates
    assert {each.name for each in made.checks} >= {"gradient at the data", "gradient at candidates"}
    assert 0 < made.budget_at_data <= made.budget
    assert made.passes <= made.budget
    assert RunRecord.read(tmp_path / "run").examinations == first.examinations
    before = file.read_bytes()
    again = run(suite(PGD20), examination=True)
    assert again.examinations == first.examinations  # seconds too
    assert file.read_bytes() == before
    fresh = run(suite(PGD20), examination=True, fresh=True)
    assert fresh.examinations[0].seconds != made.seconds


def test_a_damaged_file_is_made_again(
    run: Run, suite: MakeSuite, plant: planted.Plant, tmp_path: Path, net: nn.Module
) -> None:
    plant.model("one", lambda: classifier(net))
    (made,) = run(suite("fgsm"), examination=True).examinations
    (file,) = (tmp_path / "run" / EXAMINATIONS).iterdir()
    file.write_text("{")
    assert read_examination(tmp_path / "run", model=made.model, dataset=made.dataset) is None
    (again,) = run(suite("fgsm"), examination=True).examinations
    assert [each.name for each in again.checks][:3] == [each.name for each in made.checks][:3]


def test_checks_that_were_left_out_are_made_if_a_run_allows_more(
    run: Run, suite: MakeSuite, plant: planted.Plant, net: nn.Module
) -> None:
    plant.model("one", lambda: classifier(net))
    (few,) = run(suite("fgsm"), examination=True, limit=10).examinations
    assert few.incomplete
    (more,) = run(suite({**PGD20, "steps": 60}), examination=True).examinations
    assert more.budget_at_data > few.allowed_at_data
    assert more.passes <= more.budget
    assert not more.incomplete


def test_a_run_says_everywhere_that_it_did_not_examine(
    run: Run, suite: MakeSuite, plant: planted.Plant, net: nn.Module
) -> None:
    plant.model("one", lambda: classifier(net))
    record = run(suite("fgsm"), examination=False)
    assert record.examinations == ()
    (flag,) = (each for each in record.flags if each.kind != "single-step-only")
    assert (flag.kind, flag.severity, flag.model) == ("not-examined", "warning", "one")
    assert all("not-examined" in each.flags.split(";") for each in record.evaluations)
    later = run(suite("fgsm"), examination=True)
    assert {each.kind for each in later.flags} <= {"single-step-only"}


def test_results_are_those_without_an_examination(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    class Keeps(planted.Rows):
        """Its fifteenth call and every later one would be answered otherwise."""

        def __init__(self) -> None:
            super().__init__(1)
            self.calls = 0
            self.register_buffer("seen", torch.zeros(()))
            self.noise = torch.Generator().manual_seed(0)

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            self.seen += 1
            outputs = super().forward(inputs)
            drawn = torch.rand(len(inputs), 3, generator=self.noise)
            return outputs + (0.5 * drawn if self.calls > 25 and self.seen > 25 else 0.0)

    plant.model("one", lambda: classifier(Keeps()))
    asked = suite({"name": "pgd", "epsilon": "0.1", "steps": 5})
    errors = [
        [row.adversarial_error for row in run(asked, str(on), examination=on).evaluations]
        for on in (False, True)
    ]
    assert errors[0] == errors[1]


def test_the_model_and_the_generators_come_back_as_they_were(
    net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    module = nn.Sequential(nn.BatchNorm2d(1), net).train()
    module.history = []
    hook = module[0].register_forward_hook(lambda _, __, out: out + 0.01)
    buffers = [each.clone() for each in module.buffers()]
    engine, states = torch.autograd._engine_run_backward, torch.get_rng_state()
    examine(classifier(module), the_batch(data), budget=400)
    assert module.training
    assert all(each.training for each in module.modules())
    assert all(each.requires_grad for each in module.parameters())
    assert all(torch.equal(*pair) for pair in zip(module.buffers(), buffers, strict=True))
    assert list(module[0]._forward_hooks) == [hook.id]
    assert not any(each._forward_pre_hooks for each in module.modules())
    assert torch.autograd._engine_run_backward is engine
    assert torch.equal(torch.get_rng_state(), states)


def test_a_check_that_raises_fails_alone(
    net: nn.Module, data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("planted trouble")

    monkeypatch.setattr(examine_module.gradient_differences, "gradient_at_data", breaks)
    monkeypatch.setattr(examine_module.inner_work, "inner_work", breaks)
    found = examine(classifier(net), the_batch(data), budget=200)
    results = {each.name: each for each in found.checks}
    failed = results["gradient at the data"]
    assert failed.result == "failed"
    said = "this check could not be made: RuntimeError: planted trouble"
    assert failed.reason == f"{said} (raised by {REPORT})"
    assert results["autograd inside of forward"].result == "failed"
    assert results["alone, among others and in another order"].result == "passed"


def test_a_model_that_can_not_be_examined_is_run_and_flagged(
    run: Run, suite: MakeSuite, plant: planted.Plant, net: nn.Module, monkeypatch: Any
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("planted trouble")

    monkeypatch.setattr(examine_module, "_at_data", breaks)
    plant.model("one", lambda: classifier(net))
    record = run(suite("fgsm"), examination=True)
    assert record.status == "done"
    (flag,) = (each for each in record.flags if each.kind != "single-step-only")
    assert flag.kind == "not-examined"
    assert "RuntimeError: planted trouble" in flag.sentence


class Hidden(nn.Module):
    """Loses its gradient in every pixel that is far from the greys of the planted squares."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        far = (inputs < 0.08).flatten(1).any(1).view(-1, 1, 1, 1)
        outputs: Tensor = self.net(torch.where(far, inputs.detach(), inputs))
        return outputs


def test_a_gradient_that_is_lost_at_candidates_alone_is_found_there(
    net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    inputs, labels = data
    candidates = Candidates((inputs[:8] - 0.12).clamp(0, 1), torch.arange(8), labels[:8])
    for module, kinds in ((net, set()), (Hidden(net), {"zero-gradient"})):
        found = examine(classifier(module), the_batch(data), candidates=candidates)
        assert {each.kind for each in found.found} == kinds
    assert "at candidates" in found.found[0].sentence


def test_candidates_of_a_run_are_examined_after_it(
    run: Run, suite: MakeSuite, plant: planted.Plant, net: nn.Module
) -> None:
    plant.model("one", lambda: classifier(Hidden(net)))
    record = run(suite({**PGD20, "epsilon": "0.2"}), examination=True)
    check = next(
        each for each in record.examinations[0].checks if each.name == "gradient at candidates"
    )
    assert "candidates" in check.looked_at
    assert any("at candidates" in flag.sentence for flag in record.flags)


@pytest.mark.parametrize("kept", ["whole", "damaged"])
def test_a_run_that_continues_examines_candidates_of_attacks_that_are_finished(
    net: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path, kept: str
) -> None:
    """Whatever ends the first run: nothing in it knows that it is the last thing it does."""

    def run(folder: Path) -> RunRecord:
        return evaluate(
            {"one": net, "two": learnt(seed=1)}, data, attack=PGD20, output=folder
        ).record

    undisturbed = run(tmp_path / "undisturbed")
    folder = tmp_path / "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        batches: list[Any] = []

        def dies(*given: Any) -> Any:
            batches.append(given)
            if len(batches) == 2:  # the first batch of the second model
                raise KeyboardInterrupt
            return run_batch(*given)

        patch.setattr(in_process, "run_batch", dies)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    assert (folder / KEPT_FILE).exists()
    if kept == "damaged":
        (folder / KEPT_FILE).write_bytes(b"PK")
    resumed = run(folder)
    assert not (folder / KEPT_FILE).exists()
    if kept == "whole":
        assert resumed.checks == undisturbed.checks
    else:
        assert [each.name for each in resumed.checks] == [each.name for each in undisturbed.checks]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_examples_are_enough_to_examine(
    net: nn.Module, data: tuple[Tensor, Tensor], count: int
) -> None:
    found = examine(classifier(net), the_batch(data, count))
    assert found.found == ()
    assert "failed" not in {each.result for each in found.checks}


def test_one_class_of_labels_and_a_constant_answer_repair_nothing() -> None:
    torch.manual_seed(0)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    with torch.no_grad():
        constant[1].weight.mul_(0.01)
        constant[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    batch = planted.squares(examples=90).batch(torch.arange(90).numpy())
    labels = torch.zeros(90, dtype=torch.int64)
    found = examine(classifier(constant), Batch(batch.ids, batch.inputs, labels))
    assert {each.kind for each in found.found} <= {"error-at-chance"}


def test_a_model_without_gradients_is_examined_as_far_as_it_goes(
    data: tuple[Tensor, Tensor], net: nn.Module
) -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        @torch.no_grad()
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.net(inputs)
            return outputs

    found = examine(classifier(Closed()), the_batch(data))
    results = {each.name: each.result for each in found.checks}
    assert results["gradient at the data"] == "abstained"
    assert found.found == ()
    assert found.backward_passes == 0


def test_inputs_that_are_no_pictures_and_many_classes(data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    wide = nn.Linear(20, 1000)
    inputs = torch.rand(40, 20)
    with torch.no_grad():
        labels = wide(inputs).argmax(1)
    model = Classifier(wide, classes=1000, input_shape=(20,))
    found = examine(model, Batch(torch.arange(40), inputs, labels))
    assert found.found == ()
    assert "failed" not in {each.result for each in found.checks}


def test_a_model_in_bfloat16_is_examined_in_float32_where_that_matters(
    run: Run, suite: MakeSuite, plant: planted.Plant, net: nn.Module
) -> None:
    class Flipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return -gradient

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.net(Flipped.apply(inputs))
            return outputs

    for module, kinds in ((net, set()), (Wrong(), {"gradient-mismatch"})):
        plant.model("one", lambda module=module: classifier(module))
        record = run(suite(PGD20), examination=True, precision="bfloat16")
        of_attacks = {"error-below-clean", "loss-did-not-rise"}
        assert {each.kind for each in record.flags} - of_attacks == kinds


def test_the_record_is_plain_json(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    found = examine(classifier(net), the_batch(data))
    assert Examination.model_validate(json.loads(found.model_dump_json())) == found
