"""The code of a model, as far as its answers and gradients come from it, is part of its digest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from planted import Run
from test_execute import MakeSuite
from torch import Tensor, nn

from gibbon.core.import_path import load_reference
from gibbon.runner.plan.model_code import model_code

NET = '''
"""A network."""
import torch
from torch import nn
from layers import Flip, scale

FACTOR = 2.0
UNUSED = 3.0


class Net(nn.Module):
    """Classifies."""

    names = ("a", "b")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)
        self.calls = 0

    def forward(self, inputs):
        """Returns logits."""
        self.calls += 1  # nothing reads it
        inputs = Flip.apply(inputs.flatten(1))
        return self.linear(scale(inputs)) * FACTOR


def main():
    print("trains")
'''
LAYERS = """
import torch

SIGN = 1.0
TABLE = {"bias": 0.0, "names": {"x", "y", "z"}}


class Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * SIGN


def scale(inputs):
    def inner(values):
        return values + TABLE["bias"]
    return inner(inputs) if inputs is not None else None
"""


@pytest.fixture
def digest(tmp_path: Path) -> Callable[..., str]:
    """Returns the digest of the code of the network in two files, after changes of their texts."""
    made: list[Path] = []

    def of(*changes: tuple[str, str], used: bool = False) -> str:
        net, layers = NET, LAYERS
        for old, new in changes:
            assert old in net + layers
            net, layers = net.replace(old, new), layers.replace(old, new)
        folder = tmp_path / f"project{len(made)}"
        made.append(folder)
        folder.mkdir()
        (folder / "net.py").write_text(net)
        (folder / "layers.py").write_text(layers)
        module = load_reference(f"{folder / 'net.py'}:Net", what="model")()
        if used:
            module(torch.rand(2, 1, 4, 4))
        return model_code(module)

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return gradient * SIGN", "return -gradient * SIGN"),
        ("SIGN = 1.0", "SIGN = -1.0"),
        ("inputs.clone()", "inputs.clone().round()"),
        ("FACTOR = 2.0", "FACTOR = 2.5"),
        ('"bias": 0.0', '"bias": 0.5'),
        ("values + TABLE", "values - TABLE"),
        ("scale(inputs)) * FACTOR", "scale(-inputs)) * FACTOR"),
        ('names = ("a", "b")', 'names = ("a", "c")'),
        ("if inputs is not None", "if inputs is None"),
    ],
)
def test_a_change_that_answers_or_gradients_may_come_from_counts(
    digest: Callable[..., str], old: str, new: str
) -> None:
    assert digest((old, new)) != digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A network."""', ""),
        ('"""Classifies."""', '"""Classifies pictures."""'),
        ('        """Returns logits."""\n', ""),
        ("  # nothing reads it", ""),
        ("def scale(inputs):\n", 'def scale(inputs):\n    """Scales."""\n'),
        ("UNUSED = 3.0", "UNUSED = 4.0"),
        ('print("trains")', 'print("trains", "well")'),
        ("class Flip", "\n\n# A layer.\nclass Flip"),
        ('{"x", "y", "z"}', '{"z", "x", "y"}'),
    ],
)
def test_words_and_what_forward_does_not_reach_leave_the_digest(
    digest: Callable[..., str], old: str, new: str
) -> None:
    assert digest((old, new)) == digest()


def test_a_counter_that_a_function_keeps_leaves_the_digest() -> None:
    def counted() -> nn.Module:
        calls = 0

        def count(inputs: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return inputs

        return Holds(act=count)

    one, other = counted(), counted()
    one.act(torch.zeros(1))
    assert model_code(one) == model_code(other)


def test_a_counter_of_calls_leaves_the_digest(digest: Callable[..., str]) -> None:
    assert digest(used=True) == digest()


def twice(inputs: Tensor) -> Tensor:
    return 2 * inputs


def thrice(inputs: Tensor) -> Tensor:
    return 3 * inputs


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


class Holds(nn.Module):
    def __init__(self, **held: Any) -> None:
        super().__init__()
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def hooked(function: Callable[[Tensor], Tensor]) -> nn.Module:
    net = plain()
    net[0].register_forward_hook(lambda _, __, outputs: function(outputs))
    return net


def patched(function: Callable[[Tensor], Tensor]) -> nn.Module:
    net = plain()
    net[1].forward = function
    return net


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(hooked, id="hook"),
        pytest.param(patched, id="patched forward"),
        pytest.param(lambda function: Holds(act=function), id="function"),
        pytest.param(lambda function: Holds(act=[function]), id="list"),
        pytest.param(lambda function: Holds(act=lambda x: function(x)), id="lambda"),
        pytest.param(lambda function: Holds(act=functools.partial(function)), id="partial"),
        pytest.param(lambda function: Holds(parts=[Holds(act=function)]), id="hidden module"),
    ],
)
def test_functions_that_parts_hold_count(
    build: Callable[[Callable[[Tensor], Tensor]], nn.Module],
) -> None:
    assert model_code(build(twice)) == model_code(build(twice)) != model_code(build(thrice))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, -1.0),
        ("mean", "sum"),
        ("4/255", "8/255"),
        (torch.ones(2), torch.zeros(2)),
        ({"a": 1}, {"a": 2}),
        (torch.relu, torch.tanh),
        (torch.float32, torch.float64),
    ],
)
def test_what_parts_hold_counts(one: object, other: object) -> None:
    assert model_code(Holds(held=one)) == model_code(Holds(held=one))
    assert model_code(Holds(held=one)) != model_code(Holds(held=other))


def test_layers_and_settings_of_torch_count_and_paths_do_not() -> None:
    assert model_code(nn.ReLU()) != model_code(nn.GELU())
    assert model_code(nn.MaxPool2d(2)) != model_code(nn.MaxPool2d(2, stride=1))
    assert model_code(Holds(file="/one/place")) == model_code(Holds(file="/another/place"))
    assert model_code(Holds(text="no/place\0")) != model_code(Holds(text="another/place\0"))


def test_a_traced_module_goes_by_its_code() -> None:
    def traced(function: Callable[[Tensor], Tensor]) -> nn.Module:
        module: nn.Module = torch.fx.symbolic_trace(patched(function))
        return module

    assert model_code(traced(twice)) == model_code(traced(twice)) != model_code(traced(thrice))


def test_a_class_from_a_console_is_read() -> None:
    def typed(sign: str) -> nn.Module:
        space: dict[str, Any] = {"__name__": "__main__", "nn": nn}
        text = f"class Typed(nn.Module):\n    def forward(self, inputs): return {sign}inputs\n"
        exec(text, space)  # noqa: S102  as a console does
        module: nn.Module = space["Typed"]()
        return module

    assert model_code(typed("")) == model_code(typed("")) != model_code(typed("-"))


def test_cycles_end_and_many_entries_go_by_their_number() -> None:
    one, other = Holds(), Holds()
    one.root, other.root = [one], [other]
    one.table = other.table = {str(each): twice for each in range(1000)}
    assert model_code(one) == model_code(other)


FILE = """
import torch
from torch import nn


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return SIGNgradient


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)

    def forward(self, inputs):
        return self.linear(Identity.apply(inputs.flatten(1)))
"""


def test_a_mended_backward_pass_is_computed_again_and_a_remark_is_not(
    run: Run, suite: MakeSuite, tmp_path: Path
) -> None:
    file = tmp_path / "flipped_net.py"
    asked = suite("fgsm", models=({"name": "net", "model": f"{file}:Net"},))
    file.write_text(FILE.replace("SIGN", "-"))
    flipped = run(asked)
    assert run(asked).provenance.computed_cells == 0
    file.write_text(FILE.replace("SIGN", "-") + "# a remark\n")
    assert run(asked).provenance.computed_cells == 0
    file.write_text(FILE.replace("SIGN", ""))
    mended = run(asked)
    assert mended.provenance.computed_cells == 2
    found = [record.evaluations[1].adversarial_error for record in (flipped, mended)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1] > found[0]
    renamed = suite("fgsm", models=({"name": "other", "model": f"{file}:Net"},))
    assert run(renamed).provenance.computed_cells == 0


def test_a_sign_that_code_does_not_show_is_seen_in_the_gradient(
    run: Run, suite: MakeSuite, plant: planted.Plant, code_left_out: None
) -> None:
    """As in a library that is written in another language."""
    sign = [-1.0]

    class Flip(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * sign[0]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(16, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.linear(Flip.apply(inputs.flatten(1)))
            return outputs

    plant.model("one", lambda: planted.classifier(Net()))
    run(suite("fgsm"))
    assert run(suite("fgsm")).provenance.computed_cells == 0
    sign[0] = 1.0
    assert run(suite("fgsm")).provenance.computed_cells == 2
