"""A snapshot tells what was done to a module, and undoes it."""

import nets
import pytest
import torch
from torch import nn

from benchmark.snapshot import Snapshot

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
