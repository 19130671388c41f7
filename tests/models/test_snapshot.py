"""A snapshot tells what was done to a module, and undoes it."""

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gibbon.models.classifier import Classifier
from gibbon.models.snapshot import Listener, ModuleReferences, Snapshot

INPUTS = nets.random_batch(6).inputs


def evaluated() -> nn.Module:
    return nets.conv().module.eval().requires_grad_(False)


def run_in_training_mode(module: nn.Module) -> None:
    module.train()
    module(INPUTS)  # moves the running statistics of the batch normalisation
    module.eval()


@torch.no_grad()
def add_in_place(module: nn.Module) -> None:
    module[0].weight.add_(0.1)


def write_past_the_counter(module: nn.Module) -> None:
    module[5].weight.data.mul_(1.5)


def write_through_numpy(module: nn.Module) -> None:
    module[5].weight.numpy()[0, 0] += 1.0


def replace_a_parameter(module: nn.Module) -> None:
    module[0].weight = nn.Parameter(module[0].weight + 0.5, requires_grad=False)


def replace_the_data(module: nn.Module) -> None:
    module[0].weight.data = module[0].weight.data + 0.5


def replace_a_buffer(module: nn.Module) -> None:
    module[1].running_var = module[1].running_var * 2


def thaw(module: nn.Module) -> None:
    module[0].weight.requires_grad_(True)


def train(module: nn.Module) -> None:
    module[3].train()


def make_double(module: nn.Module) -> None:
    module.double()


TENSORS = "changed the model's parameters or buffers"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (run_in_training_mode, TENSORS),
        (add_in_place, TENSORS),
        (write_past_the_counter, TENSORS),
        (write_through_numpy, TENSORS),
        (replace_a_parameter, TENSORS),
        (replace_the_data, TENSORS),
        (replace_a_buffer, TENSORS),
        (make_double, TENSORS),
        (thaw, "changed which of the model's parameters are frozen"),
        (train, "left the model in another mode"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_harm_is_told_and_undone(harm, told):
    module = evaluated()
    before = module(INPUTS)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parameters = list(module.parameters())
    snapshot = Snapshot(module)
    harm(module)
    assert (snapshot.difference() or "").startswith(told)
    snapshot.restore()
    assert snapshot.difference() is None
    assert torch.equal(module(INPUTS), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))


def test_use_is_no_harm():
    module = evaluated()
    snapshot = Snapshot(module)
    leaf = INPUTS.clone().requires_grad_()
    torch.autograd.grad(module(leaf).sum(), leaf)
    with torch.no_grad():
        module(INPUTS)
    assert snapshot.difference() is None


def test_a_module_that_holds_nan_is_not_different_from_itself():
    module = evaluated()
    module[1].running_mean[0] = float("nan")
    module[1].running_var[0] = float("-inf")
    assert Snapshot(module).difference() is None


def test_a_module_without_tensors_has_a_snapshot():
    assert Snapshot(nn.Flatten()).difference() is None


def test_a_listener_that_comes_later_is_no_change_and_one_that_is_lost_is():
    layer = nn.Linear(2, 1)
    seen: list[str] = []
    own = layer.register_forward_hook(Listener(lambda *_: seen.append("own")))
    snapshot = Snapshot(layer)
    later = layer.register_forward_hook(Listener(lambda *_: seen.append("later")))
    assert snapshot.difference() is None
    layer.register_forward_hook(lambda *_: None)
    assert snapshot.difference() == "hooked or patched the model"
    snapshot.restore()
    assert snapshot.difference() is None
    layer(torch.zeros(1, 2))
    assert sorted(seen) == ["later", "own"]
    later.remove()
    assert snapshot.difference() is None
    own.remove()
    assert snapshot.difference() == "hooked or patched the model"


# What is the caller's


class Odd(nn.Module):
    """Tied parameters, plain tensors, a gradient, a hook, buffers that are not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scratch", torch.ones(4), persistent=False)
        self.register_buffer("again", self.scratch)
        self.register_buffer("nothing", None)
        self.mean = torch.full((4,), 0.5)
        self.cache: Tensor | None = None
        self.calls = 0
        self.first.register_forward_hook(lambda module, arguments, outputs: None)
        self.first.weight.grad = torch.ones(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.cache = inputs - self.mean
        self.later = self.cache
        return self.norm(self.second(self.first(self.cache))) * self.scratch


def odd(training: list[bool], frozen: list[bool]) -> Odd:
    module = Odd()
    for each, mode in zip(module.modules(), training, strict=False):
        each.training = mode
    for parameter, still in zip(module.parameters(), frozen, strict=False):
        parameter.requires_grad_(not still)
    return module


def tensors(module: nn.Module) -> dict[str, Tensor]:
    plain = {
        f"{name}.{key}": value
        for name, each in module.named_modules()
        for key, value in each.__dict__.items()
        if isinstance(value, Tensor)
    }
    own = {
        f"{name}.{key}": value
        for name, each in module.named_modules()
        for key, value in [*each._parameters.items(), *each._buffers.items()]
        if value is not None
    }
    return {**plain, **own}


def state(module: nn.Module) -> list[Any]:
    """Everything that a caller could see: which objects, where, and what they hold."""
    parts = tensors(module).items()
    return [
        [(name, id(each), each.data_ptr(), each.device, each.dtype) for name, each in parts],
        [(name, each.requires_grad, id(each.grad)) for name, each in parts],
        [each.grad.data_ptr() for _, each in parts if each.grad is not None],
        [each.detach().clone().tolist() for _, each in parts],
        [each.training for each in module.modules()],
        [list(each._forward_hooks.items()) for each in module.modules()],
        [sorted(each.__dict__) for each in module.modules()],
        [sorted(each._modules) for each in module.modules()],
    ]


def copies(module: nn.Module) -> None:
    """Moves every tensor as a GPU would: the same parameters, with other content."""
    module._apply(lambda tensor: tensor.detach().clone())


MOVES: dict[str, Callable[[nn.Module], Any]] = {
    "stays": lambda module: None,
    "copies": copies,
    "double": nn.Module.double,
    "meta": lambda module: module.to("meta"),
    "hooks": lambda module: module.norm.register_forward_pre_hook(lambda *_: None),
    "buffer": lambda module: module.register_buffer("more", torch.ones(1)),
    "gradient": lambda module: setattr(module.norm.weight, "grad", torch.ones(4)),
    "forgets": lambda module: module.zero_grad(),
}
MODES = st.lists(st.booleans(), min_size=4, max_size=4)


@given(training=MODES, frozen=MODES, move=st.sampled_from(sorted(MOVES)), fails=st.booleans())
def test_whatever_happens_the_caller_finds_the_same_module(training, frozen, move, fails):
    module = odd(training, frozen)
    before = state(module)
    classifier = Classifier(module, classes=4, input_shape=(4,))

    def use() -> None:
        with classifier.evaluating("cpu"):
            classifier.predict(torch.rand(3, 4))
            MOVES[move](module)
            if fails:
                raise KeyError(move)

    if fails:
        with pytest.raises(KeyError):
            use()
    else:
        use()
    assert state(module) == before
    assert module.second.weight is module.first.weight
    assert module.again is module.scratch
    assert module.calls == 1  # what a module counts is its own business


def test_plain_tensors_go_along_to_the_device_and_come_back():
    module = odd([True], [])
    mean = module.mean
    with Classifier(module, classes=4, input_shape=(4,)).evaluating("meta"):
        assert {each.device.type for each in tensors(module).values()} == {"meta"}
    assert module.mean is mean
    assert module(torch.rand(3, 4)).device.type == "cpu"


def test_buffers_that_are_moved_in_place_come_back():
    module = odd([], [])
    before = state(module)
    references = ModuleReferences(module)
    module.scratch.data = module.scratch.data.double()
    references.put_back()
    assert state(module) == before
