"""Recorded networks compute what their module computes, and other modules are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from solved import drawn, images
from torch import Tensor, nn
from torch.nn import functional

from gibbon.bounds.certify import follows
from gibbon.bounds.network import NoBoundError
from gibbon.bounds.tracing import trace

SHAPE = (2, 6, 6)


class Function(nn.Module):
    """A function of the input, with a linear layer behind it."""

    def __init__(self, function: Callable[[Tensor], Tensor], inputs: int = 0) -> None:
        super().__init__()
        self.function = function
        self.last = nn.Linear(inputs, 3) if inputs else None

    def forward(self, inputs: Tensor) -> Tensor:
        made = self.function(inputs)
        return made if self.last is None else self.last(made.flatten(1))


KERNEL = torch.linspace(-1, 1, 3 * 2 * 3 * 3).view(3, 2, 3, 3)

# A function, and the number of values that it makes of an input.
SUPPORTED: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "arithmetic": (lambda x: 1 - 2 * ((x - 0.3) / 0.5) + 3 - (-x), 72),
    "sums of parts": (lambda x: torch.add(x[:, :1], x[:, 1:], alpha=2) - x[:, 1:] * 0.5, 36),
    "a mean and a standard deviation for each channel": (
        lambda x: (x - torch.tensor([0.1, 0.2]).view(1, 2, 1, 1)) / torch.tensor(0.3),
        72,
    ),
    "constants of the size of the batch": (lambda x: x + x.new_ones(len(x), 1, 1, 6), 72),
    "broadcasting": (lambda x: x.mean((2, 3), keepdim=True) + x, 72),
    "moves": (lambda x: x.transpose(1, 3).flip(2).permute(0, 2, 1, 3).reshape(len(x), -1), 72),
    "slices": (lambda x: torch.cat([x[:, 0], x[:, 1, 1:4], x[:, 1, :, ::2].mT], dim=1), 72),
    "stack, split and unbind": (
        lambda x: torch.stack([*x.split(1, dim=1)[0].unbind(1), x.chunk(2, 1)[1].squeeze(1)], 1),
        72,
    ),
    "paddings": (
        lambda x: functional.pad(functional.pad(x, (1, 0, 0, 2), value=0.5), (1, 1, 1, 1),
        mode="reflect"), 180,
    ),
    "functional layers": (lambda x: functional.conv2d(x, KERNEL, stride=2).relu(), 12),
    "groups and dilation": (
        lambda x: functional.conv2d(x, KERNEL[:2, :1], padding=2, dilation=2, groups=2), 72,
    ),
    "one axis": (lambda x: functional.conv1d(x.flatten(1, 2), KERNEL[:, 0].repeat(1, 4, 1)), 12),
    "averages": (lambda x: functional.avg_pool2d(x, 2, 1, ceil_mode=True), 50),
    "adaptive averages": (lambda x: functional.adaptive_avg_pool2d(x, (4, 3)), 24),
    "largest of windows": (lambda x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True), 32),
    "dilated windows": (lambda x: functional.max_pool2d(x, 2, 1, dilation=3), 18),
    "windows of one axis": (lambda x: functional.max_pool1d(x.flatten(1, 2), 2), 36),
    "adaptive windows": (lambda x: functional.adaptive_max_pool2d(x, 4), 32),
    "maxima": (lambda x: torch.cat([x.amax((1, 3)), x.max(2).values.flatten(1)], dim=1), 18),
    "minima": (lambda x: torch.cat([x.amin(1).flatten(1), x.min(3)[0].flatten(1)], dim=1), 48),
    "two values": (lambda x: torch.maximum(x[:, 0], 1 - x[:, 1]) - torch.min(x[:, 0], x[:, 1]), 36),
    "a value and a constant": (
        lambda x: torch.maximum(x, torch.tensor(0.4)) + torch.minimum(x, torch.full((6,), 0.6)), 72,
    ),
    "clamps": (lambda x: x.clamp(0.2, 0.7) + x.clamp(min=0.5) + functional.hardtanh(x - 0.5), 72),
    "in place": (lambda x: (x * 2 - 1).relu_().mul_(3).add_(1), 72),
    "squares and sizes": (lambda x: (x - 0.5) ** 2 + (x * x) + (x - 0.2).abs() + x.square(), 72),
    "activations": (
        lambda x: torch.sigmoid(x) + x.tanh() + functional.elu(x - 0.5) + functional.softplus(x),
        72,
    ),
    "leaky activations": (lambda x: functional.leaky_relu(x - 0.5, 0.3), 72),
    "a vector product": (
        lambda x: torch.stack([x.flatten(1) @ torch.linspace(0, 1, 72)] * 2, 1), 2,
    ),
    "copies": (lambda x: x.clone().detach().contiguous().to(torch.float32), 72),
    "an upsampled picture": (lambda x: functional.interpolate(x, scale_factor=2), 288),
    "a bilinear picture": (lambda x: functional.interpolate(x, size=9, mode="bilinear"), 162),
}  # fmt: skip


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_recorded_network_computes_the_outputs_of_its_module(name: str) -> None:
    function, size = SUPPORTED[name]
    net = drawn(Function(function, size), seed=1)
    inputs = images(7, *SHAPE, seed=3)
    network = trace(net, inputs)
    outputs = net(inputs)
    torch.testing.assert_close(network.values(inputs).float(), outputs, atol=1e-5, rtol=1e-5)
    assert follows(network, inputs, outputs, tensor_float=False)
    assert not follows(network, inputs, outputs + 0.01, tensor_float=False)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a decision": (lambda x: x.flatten(1) if x.mean() > 0.5 else -x.flatten(1), "mixes|decides"),
    "a number that is read": (lambda x: x.flatten(1) * float(x.sum()), "mixes|decides"),
    "numpy": (lambda x: torch.from_numpy(np.tanh(x.numpy())).flatten(1), "numpy"),
    "a list": (lambda x: torch.tensor(x.tolist()).flatten(1), "tolist"),
    "rounding": (lambda x: (x * 255).round().flatten(1), "round"),
    "a comparison": (lambda x: (x > 0.5).float().flatten(1), "gt"),
    "a selection": (lambda x: torch.where(x > 0.5, x, -x).flatten(1), "gt"),
    "an index": (lambda x: x.flatten(1).argmax(1, keepdim=True).float(), "argmax"),
    "the place of a maximum": (lambda x: x.max(1)[1].float().flatten(1), "index"),
    "a product": (lambda x: x[:, 0].flatten(1) * x[:, 1].flatten(1), "multiplies"),
    "attention": (lambda x: torch.bmm(x[:, 0], x[:, 1]).flatten(1), "bmm"),
    "a quotient": (lambda x: 1 / (x + 1).flatten(1), "reciprocal|divides"),
    "a norm": (lambda x: x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True), "norm|divides"),
    "the mean of the batch": (lambda x: (x - x.mean(0, keepdim=True)).flatten(1), "mixes"),
    "the mean of everything": (lambda x: (x - x.mean()).flatten(1), "mixes"),
    "the batch in another order": (lambda x: x.flip(0).flatten(1), "mixes"),
    "the largest of the batch": (lambda x: (x - x.amax(0)).flatten(1), "mixes"),
    "examples in one row": (lambda x: x.reshape(1, -1).repeat(2, 1), "mixes"),
    "other constants for other examples": (
        lambda x: x.flatten(1) + torch.arange(len(x)).unsqueeze(1), "other examples",
    ),
    "half precision": (lambda x: x.half().float().flatten(1), "float16"),
    "a write into a part": (
        lambda x: torch.clone(x).index_fill_(1, torch.tensor([0]), 0.0).flatten(1), "index_fill",
    ),
    "a view that has changed": (lambda x: stale(x), "view"),
    "softmax inside": (lambda x: torch.softmax(x.flatten(1), 1) * 2, "softmax"),
    "softmax over another axis": (lambda x: torch.softmax(x.flatten(1), 0), "softmax"),
    "a smooth function that falls": (lambda x: functional.silu(x).flatten(1), "silu"),
    "a steep leaky ReLU": (lambda x: functional.leaky_relu(x, 2.0).flatten(1), "leaky ReLU"),
    "a constant": (lambda x: torch.zeros(len(x), 3), "depend"),
    "an error of its own": (lambda x: x.flatten(1) @ torch.zeros(5, 3), "can't be traced"),
}  # fmt: skip


def stale(inputs: Tensor) -> Tensor:
    shifted = inputs - 0.5
    shifted.view(len(inputs), -1).relu_()
    return shifted.flatten(1)


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_can_not_be_recorded_is_refused_with_the_reason(name: str) -> None:
    function, reason = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(NoBoundError, match=reason):
            trace(Function(function), images(3, *SHAPE))


def test_a_refusal_counts_although_the_module_catches_it() -> None:
    def careful(inputs: Tensor) -> Tensor:
        try:
            return inputs.round().flatten(1)
        except Exception:  # noqa: BLE001
            return inputs.flatten(1)

    with pytest.raises(NoBoundError, match="round"):
        trace(Function(careful), images(3, *SHAPE))


def test_hooks_are_recorded_like_everything_else() -> None:
    net = drawn(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), seed=1)
    net[1].register_forward_hook(lambda module, inputs, outputs: -outputs)
    inputs = images(4, *SHAPE)
    torch.testing.assert_close(trace(net, inputs).values(inputs).float(), net(inputs))


def test_batch_norm_with_the_statistics_of_the_batch_is_refused() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()).eval()
    with pytest.raises(NoBoundError, match="statistics of the batch"):
        trace(net, images(3, *SHAPE))


@pytest.mark.parametrize("final", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_at_the_end_is_left_out_of_the_margin(final: nn.Module) -> None:
    body = drawn(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), seed=1)
    inputs = images(4, *SHAPE)
    network = trace(nn.Sequential(body, final), inputs)
    torch.testing.assert_close(network.values(inputs).float(), body(inputs))
    assert network.final
    assert network.output_slack > 0
    assert follows(network, inputs, final(body(inputs)), tensor_float=False)


def test_tracing_changes_no_module_and_runs_no_gradient() -> None:
    net = drawn(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.ReLU(inplace=True)), seed=1)
    inputs = images(4, *SHAPE)
    before = {name: each.clone() for name, each in net.state_dict().items()}
    copy = inputs.clone()
    trace(net, inputs)
    assert torch.equal(inputs, copy)
    assert all(torch.equal(each, net.state_dict()[name]) for name, each in before.items())
