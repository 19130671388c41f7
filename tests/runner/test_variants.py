"""The same model in bfloat16 and through torch.compile."""

from __future__ import annotations

import copy
from typing import Any

import nets
import planted
import pytest
import torch
from planted import Run
from same_outcomes import assert_same
from test_execute import MakeSuite
from torch import Tensor, nn
from torch._dynamo.utils import counters

from gibbon.core.errors import ModelError
from gibbon.models.pass_count import PassCount
from gibbon.runner import precision as variants
from gibbon.runner.precision import vary

INPUTS = nets.random_batch(7).inputs
ATTACKS: list[Any] = [{"name": "fgsm", "epsilon": ["0.1", "0.2"]}, {"name": "pgd", "epsilon": 0.1}]


def test_nothing_is_put_around_a_model_as_it_is():
    given = nets.conv()
    assert vary(given, precision="float32", compiled=False) is given


def test_bfloat16_computes_coarsely_and_answers_in_float32():
    given = nets.conv()
    varied = vary(given, precision="bfloat16", compiled=False)
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
    assert coarse.models[0].notes == ("computed in bfloat16",)
    assert exact.models[0].notes == ()


def test_a_model_that_torch_does_not_run_has_no_other_precision():
    given = nets.conv()
    given.forward_only = "ONNX Runtime gives no gradients"
    with pytest.raises(ModelError, match="of its own: leave out --precision"):
        vary(given, precision="bfloat16", compiled=False)
    assert vary(given, precision="float32", compiled=True) is given


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
    assert len(compiles) == 1
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
    varied = vary(nets.conv(), precision="float32", compiled=True)
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
    varied = vary(given, precision="float32", compiled=True)
    with varied.evaluating():
        varied.predict(INPUTS[:1])
        assert compiles == []
        varied.predict(INPUTS)
    assert len(compiles) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_answers_alike_in_batches_of_every_size():
    given = nets.conv()
    own = given.module
    state = {name: id(each) for name, each in own.state_dict(keep_vars=True).items()}
    varied = vary(given, precision="float32", compiled=True)
    given = copy.deepcopy(given)  # hooks on the module itself would be compiled too
    counters.clear()
    with varied.evaluating(), given.evaluating():
        for size in (7, 6, 5, 4, 3, 2, 1, 9, 40):
            inputs = nets.random_batch(size).inputs
            torch.testing.assert_close(varied.predict(inputs), given.predict(inputs))
            outputs, gradient = varied.ascend(inputs, torch.ones_like)
            expected, slope = given.ascend(inputs, torch.ones_like)
            torch.testing.assert_close(outputs, expected)
            torch.testing.assert_close(gradient, slope)
    # Eight sizes, with gradients and without: far fewer graphs than the sixteen of one for each.
    assert counters["stats"]["unique_graphs"] <= 4
    now = {name: id(each) for name, each in own.state_dict(keep_vars=True).items()}
    assert now == state
    assert variants.uncompiled(varied.module) is own
    assert isinstance(own, nn.Sequential)
