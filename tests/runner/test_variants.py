"""The same model in bfloat16 and through torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import nets
import planted
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import Run
from same_outcomes import assert_same
from test_execute import MakeSuite
from torch import Tensor, nn
from torch._dynamo.utils import counters

from gibbon.core.errors import ModelError
from gibbon.diagnostics.precision_flags import changed_prediction_flags
from gibbon.models.pass_count import PassCount
from gibbon.records.run import PredictionChange
from gibbon.runner.device import precision as variants
from gibbon.runner.device.compiled import FEWEST, MOST_FULL, BatchSizes, Compiled
from gibbon.runner.device.precision import Variant, vary
from gibbon.runner.plan.make_plan import make_plan
from gibbon.runner.settings import RunSettings

INPUTS = nets.random_batch(7).inputs
PLAIN, COARSE, COMPILED = Variant(), Variant("bfloat16"), Variant(compiled=True)
LAST = Variant(channels_last=True)
ATTACKS: list[Any] = [{"name": "fgsm", "epsilon": ["0.1", "0.2"]}, {"name": "pgd", "epsilon": 0.1}]


def test_nothing_is_put_around_a_model_as_it_is():
    given = nets.conv()
    assert vary(given, PLAIN) is given


def test_bfloat16_computes_coarsely_and_answers_in_float32():
    given = nets.conv()
    varied = vary(given, COARSE)
    with varied.evaluating():
        outputs = varied.predict(INPUTS)
        _, gradient = varied.ascend(INPUTS, torch.ones_like)
    with given.evaluating():
        exact = given.predict(INPUTS)
    assert outputs.dtype == gradient.dtype == torch.float32
    assert not torch.equal(outputs, exact)
    torch.testing.assert_close(outputs, exact, rtol=0.05, atol=0.05)
    assert varied.passes == PassCount(21, 7)  # the count is shared with the model itself
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_is_another_model_to_the_records(run: Run, suite: MakeSuite) -> None:
    exact = run(suite(*ATTACKS), "run")
    coarse = run(suite(*ATTACKS), "run", precision="bfloat16")
    assert coarse.provenance.computed_cells == 4
    assert coarse.models[0].digest != exact.models[0].digest
    assert coarse.models[0].weights_digest == exact.models[0].weights_digest
    (note,), change = coarse.models[0].notes, coarse.models[0].change
    assert change is not None
    assert change.of == planted.EXAMPLES
    assert note == change.sentence
    assert note.startswith(f"computed in bfloat16: {change.changed} of 60 predictions")
    assert exact.models[0].notes == ()
    assert exact.models[0].change is None


def test_a_model_that_torch_does_not_run_has_no_other_precision():
    given = nets.conv()
    given.forward_only = "ONNX Runtime gives no gradients"
    with pytest.raises(ModelError, match="of its own: leave out --precision"):
        vary(given, COARSE)
    assert vary(given, COMPILED, padded=True) is given


def test_a_model_in_float64_is_not_computed_in_bfloat16(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("one", lambda: planted.classifier(planted.Rows(1).double()))
    with pytest.raises(ModelError, match=r"are torch\.float64, .* leave out --precision"):
        run(suite(*ATTACKS), "run", precision="bfloat16")


class InPlace(planted.Rows):
    """Copies its outputs into a tensor of float32, which autocast does not convert."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = nn.functional.linear(inputs.flatten(1), self.weight)
        into, rows = torch.zeros(outputs.shape), torch.arange(len(outputs))
        return into.index_copy_(0, rows, outputs)


def test_a_model_that_fails_in_bfloat16_is_said_to_run_in_it(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("one", lambda: planted.classifier(InPlace(1)))
    with pytest.raises(ModelError, match="computed in bfloat16: leave out --precision if"):
        run(suite(*ATTACKS), "run", precision="bfloat16")


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of a compiler: what it was asked for, run as it is."""
    asked: list[Any] = []

    def compile_(function: Any, **options: Any) -> Any:
        asked.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    return asked


def test_compiling_changes_no_digest_and_leaves_the_module_alone(
    run: Run, suite: MakeSuite, plant: planted.Plant, compiles: list[Any]
) -> None:
    exact = run(suite(*ATTACKS), "run")
    compiled = run(suite(*ATTACKS), "compiled", compile=True)
    assert {each["dynamic"] for each in compiles} == {False}
    assert_same(compiled.evaluations, exact.evaluations)
    assert compiled.models == exact.models
    again = run(suite(*ATTACKS), "run", compile=True)
    assert again.provenance.computed_cells == 0
    module = plant.built["one"][1].module
    assert type(module) is planted.Rows
    assert sorted(module.__dict__) == sorted(planted.Rows(1).__dict__)


def test_the_mark_of_a_batch_of_any_size_stays_on_no_tensor_of_the_caller(
    compiles: list[Any],
) -> None:
    varied = vary(nets.conv(), COMPILED, padded=False)
    inputs = INPUTS.clone()
    before = set(inputs.__dict__)
    varied.predict(inputs)
    assert set(inputs.__dict__) == before


def test_where_there_is_no_compiler_the_model_is_refused_with_the_cure(
    run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(function: Any, **options: Any) -> Any:
        def run_(inputs: Tensor) -> Tensor:
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler\nlong story")

        return run_

    monkeypatch.setattr(torch, "compile", compile_)
    refusal = r"models\[0\]: 'one': torch.compile can't compile it here: no C\+\+ compiler; leave"
    with pytest.raises(ModelError, match=refusal):
        run(suite("fgsm"), compile=True)


def test_one_example_alone_runs_as_it_is(compiles: list[Any]) -> None:
    given = nets.conv()
    varied = vary(given, COMPILED, padded=False)
    with varied.evaluating():
        varied.predict(INPUTS[:1])
        assert compiles == []
        varied.predict(INPUTS)
    assert len(compiles) == 1


SHAPES = (planted.SHAPE, tuple(INPUTS.shape[1:]))


class CountsGraphs:
    """A backend of `torch.compile` that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Any:
        self.sizes += [len(each) for each in inputs if tuple(each.shape[1:]) in SHAPES]
        return graph.forward


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountsGraphs]:
    """Compiles with torch's own tracing, and raises if anything is compiled again."""
    counting, real = CountsGraphs(), torch.compile

    def compile_(function: Any, *, dynamic: bool | None, options: Any) -> Any:
        return real(function, dynamic=dynamic, backend=counting)

    monkeypatch.setattr(torch, "compile", compile_)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield counting
    torch._dynamo.reset()


STOPPING = [
    {"name": "pgd", "epsilon": ["0.02", "0.1"], "steps": 5, "keep": "first-success"},
    {"name": "apgd-ce", "epsilon": "0.02", "steps": 5},
    {"name": "square", "epsilon": "0.1", "queries": 20},
]


def test_survivors_are_padded_to_a_few_sizes_and_nothing_is_compiled_again(
    run: Run, suite: MakeSuite, graphs: CountsGraphs
) -> None:
    exact = run(suite(*STOPPING), "run", batch_size=25)
    compiled = run(suite(*STOPPING), "compiled", batch_size=25, compile=True)
    assert_same(compiled.evaluations, exact.evaluations)
    for mine, theirs in zip(compiled.evaluations, exact.evaluations, strict=True):
        assert mine.forward_passes == theirs.forward_passes  # padding is no pass
        assert mine.backward_passes == theirs.backward_passes
    # With gradients and without, of 8, 13 and 25 examples, and 50 of two epsilons at once.
    assert set(graphs.sizes) <= {8, 13, 25, 50}
    assert len(graphs.sizes) <= 8


def test_padded_answers_and_gradients_are_those_of_the_batch(graphs: CountsGraphs) -> None:
    given = nets.conv()
    varied = vary(given, COMPILED, padded=True)
    given = copy.deepcopy(given)  # hooks on the module itself would be compiled too
    with varied.evaluating(), given.evaluating():
        for size in (40, 21, 20, 7, 1, 0, 3, 40):
            inputs = nets.random_batch(40).inputs[:size]
            torch.testing.assert_close(varied.predict(inputs), given.predict(inputs))
            outputs, gradient = varied.ascend(inputs, torch.ones_like)
            expected, slope = given.ascend(inputs, torch.ones_like)
            assert gradient.is_contiguous()
            torch.testing.assert_close(outputs, expected)
            torch.testing.assert_close(gradient, slope)
    assert sorted(graphs.sizes) == [10, 10, 20, 20, 40, 40]
    assert varied.passes == given.passes


def test_an_infinite_slope_of_the_padding_reaches_no_gradient(graphs: CountsGraphs) -> None:
    class Steep(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            rows = inputs.flatten(1)[:, :3]
            return (rows - rows.detach()[-1:]).abs().sqrt()

    # The last example's own slope is infinite, and times zero it is NaN.
    module = planted.classifier(Steep())
    varied = vary(module, COMPILED, padded=True)
    inputs = nets.random_batch(5).inputs[..., :4, :4]
    with varied.evaluating():
        _, gradient = varied.ascend(inputs[:, :1], torch.ones_like)
    assert bool(torch.isfinite(gradient[:4]).all())


class CentredOnBatch(planted.Rows):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs - outputs.mean(0)


class Noisy(planted.Rows):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs + torch.randn(len(outputs), 3)


@pytest.mark.parametrize(
    ("module", "padded"), [(planted.Rows, True), (CentredOnBatch, False), (Noisy, False)]
)
def test_models_whose_answers_depend_on_the_batch_are_not_padded(
    plant: planted.Plant, plan_of: Any, compiles: list[Any], module: type, padded: bool
) -> None:
    plant.model("one", lambda: planted.classifier(module(1)))
    plan = plan_of(compile=True)
    (model,) = plan.experiments[0].models
    inner = model.classifier.module
    assert isinstance(inner, Compiled)
    assert (inner.sizes is not None) is padded


@pytest.fixture
def plan_of(suite: MakeSuite) -> Any:
    return lambda **settings: make_plan(
        suite("fgsm"), settings=RunSettings(device="cpu", **settings)
    )


@given(st.lists(st.integers(1, 700), max_size=80))
def test_batches_are_padded_by_less_than_their_size_to_few_sizes(counts: list[int]) -> None:
    sizes = BatchSizes()
    held = [sizes.holding(count) for count in counts]
    for count, size in zip(counts, held, strict=True):
        assert count <= size < max(2 * count, 2 * FEWEST)
    assert set(held) <= set(sizes.found)
    largest = max(counts, default=1).bit_length()
    assert len(sizes.found) <= (MOST_FULL + largest) * largest


def test_a_wrong_compiler_is_refused(
    run: Run, suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda own, **_: lambda inputs: own(inputs) * 1.01)
    with pytest.raises(ModelError, match=r"changes its outputs by more than rounding .*--compile"):
        run(suite("fgsm"), compile=True)


def test_channels_last_is_a_layout_of_inputs_and_kernels_during_the_evaluation():
    given = nets.conv()
    (kernel,) = [each for each in given.module.parameters() if each.ndim == 4]
    with given.evaluating():
        expected = given.predict(INPUTS)
        _, slope = given.ascend(INPUTS, torch.ones_like)
    seen: list[tuple[bool, bool]] = []
    layer = next(each for each in given.module.modules() if isinstance(each, nn.Conv2d))
    layout, before = {"memory_format": torch.channels_last}, kernel.data_ptr()
    handle = layer.register_forward_pre_hook(
        lambda part, inputs: seen.append(
            (inputs[0].is_contiguous(**layout), kernel.is_contiguous(**layout))
        )
    )
    varied = vary(given, LAST)
    with varied.evaluating("cpu"):
        torch.testing.assert_close(varied.predict(INPUTS), expected)
        _, gradient = varied.ascend(INPUTS, torch.ones_like)
    handle.remove()
    torch.testing.assert_close(gradient, slope)
    assert gradient.is_contiguous()
    assert seen == [(True, True)] * 2
    assert kernel.data_ptr() == before


def test_channels_last_changes_no_digest(run: Run, suite: MakeSuite) -> None:
    exact = run(suite(*ATTACKS), "run")
    last = run(suite(*ATTACKS), "last", channels_last=True)
    assert_same(last.evaluations, exact.evaluations)
    assert last.models[0].digest == exact.models[0].digest
    note = "computed in channels-last: 0 of 60 predictions for clean inputs (0.0%) differ from "
    assert last.models[0].notes == (f"{note}those in float32",)
    assert run(suite(*ATTACKS), "run", channels_last=True).provenance.computed_cells == 0


class Displaced(planted.Rows):
    """Adds a number to all outputs, beside which bfloat16 can't hold their differences."""

    def __init__(self, by: float) -> None:
        super().__init__(1)
        self.by = nn.Parameter(torch.full((planted.CLASSES,), by))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(nets.on_grid(inputs.flatten(1)), self.weight, self.by)


@pytest.mark.parametrize(("by", "flagged"), [(1024.0, True), (0.0, False)])
def test_a_model_whose_predictions_bfloat16_changes_is_flagged(
    run: Run, suite: MakeSuite, plant: planted.Plant, by: float, flagged: bool
) -> None:
    plant.model("one", lambda: planted.classifier(Displaced(by)))
    exact = run(suite("fgsm"), "exact")
    coarse = run(suite("fgsm"), "coarse", precision="bfloat16")
    assert "changed-predictions" not in {each.kind for each in exact.flags}
    change = coarse.models[0].change
    assert change is not None
    (clean,), (other,) = (
        [each.adversarial_error for each in record.evaluations if each.attack == "none"]
        for record in (exact, coarse)
    )
    assert clean is not None
    assert other is not None
    assert change.share >= abs(clean - other)
    found = [each for each in coarse.flags if each.kind == "changed-predictions"]
    assert [(each.severity, each.model, each.figure) for each in found] == (
        [("warning", "one", f"{change.changed} of 60")] if flagged else []
    )


def test_a_hundredth_of_the_predictions_is_not_flagged():
    for changed, count in ((2, 0), (3, 1)):
        change = PredictionChange(computed="bfloat16", changed=changed, of=256)
        assert len(list(changed_prediction_flags("data", "model", change))) == count


def test_random_predictions_are_compared_from_one_seed(
    run: Run, suite: MakeSuite, plant: planted.Plant
) -> None:
    plant.model("one", lambda: planted.classifier(Noisy(1)))
    change = run(suite("fgsm"), precision="bfloat16").models[0].change
    assert change is not None
    assert (change.of, change.changed) == (60, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padded", [True, False])
def test_a_compiled_model_answers_alike_in_batches_of_every_size(padded: bool):
    given = nets.conv()
    own = given.module
    state = {name: id(each) for name, each in own.state_dict(keep_vars=True).items()}
    varied = vary(given, Variant(channels_last=True, compiled=True), padded=padded)
    given = copy.deepcopy(given)  # hooks on the module itself would be compiled too
    counters.clear()
    with varied.evaluating("cpu"), given.evaluating():
        for size in (7, 6, 5, 4, 3, 2, 1, 9, 40):
            inputs = nets.random_batch(size).inputs
            torch.testing.assert_close(varied.predict(inputs), given.predict(inputs))
            outputs, gradient = varied.ascend(inputs, torch.ones_like)
            expected, slope = given.ascend(inputs, torch.ones_like)
            torch.testing.assert_close(outputs, expected)
            torch.testing.assert_close(gradient, slope)
    # With gradients and without: of any size, or of 8, 9 and 40 examples.
    assert counters["stats"]["unique_graphs"] <= (6 if padded else 4)
    now = {name: id(each) for name, each in own.state_dict(keep_vars=True).items()}
    assert now == state
    assert variants.unvaried(varied.module) is own
    assert isinstance(own, nn.Sequential)
