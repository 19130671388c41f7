"""Architectures against slow, obvious references."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gibbon_zoo.architecture import Architecture, constrain_norms, draw_masks
from gibbon_zoo.conv_maxout import ConvMaxout, ConvMaxoutLayer
from gibbon_zoo.logistic import Logistic
from gibbon_zoo.maxout import Maxout, MaxoutLayer
from gibbon_zoo.maxout_sigmoid import MaxoutSigmoid
from gibbon_zoo.rbf import Rbf
from gibbon_zoo.softmax import Softmax


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(architecture: type[Architecture]) -> Architecture:
    """An instance on inputs of shape (1, 3, 4)."""
    options = {"units": 5, "pieces": 3} if architecture is Maxout else {}
    return architecture(inputs=12, **options)  # type: ignore[call-arg]


def randomised(module: torch.nn.Module, scale: float = 0.5) -> torch.nn.Module:
    random = generator(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return module


@torch.no_grad()
def maxout_by_loops(layer: MaxoutLayer, inputs: Tensor) -> Tensor:
    units = torch.zeros(len(inputs), layer.units)
    for n in range(len(inputs)):
        for i in range(layer.units):
            units[n, i] = max(
                float(layer.weight[j * layer.units + i] @ inputs[n])
                + float(layer.bias[j * layer.units + i])
                for j in range(layer.pieces)
            )
    return units


def test_maxout_layer_is_the_largest_of_its_pieces() -> None:
    layer = MaxoutLayer(7, units=4, pieces=3)
    randomised(layer)
    inputs = torch.randn(6, 7, generator=generator())
    torch.testing.assert_close(layer(inputs), maxout_by_loops(layer, inputs))


def test_maxout_network_is_its_formula_with_and_without_masks() -> None:
    net = Maxout(inputs=12, classes=3, units=5, pieces=2)
    randomised(net)
    inputs = torch.rand(4, 1, 3, 4, generator=generator())
    masks = draw_masks(net.layer_widths, 4, input_rate=0.3, hidden_rate=0.5, generator=generator(2))
    for first, second, third in ([torch.ones(1)] * 3, masks):
        assert first is not None
        assert second is not None
        assert third is not None
        hidden = maxout_by_loops(net.hidden1, inputs.flatten(1) * first) * second
        hidden = maxout_by_loops(net.hidden2, hidden) * third
        expected = hidden @ net.weight.T + net.bias
        given_masks = () if first.numel() == 1 else masks
        torch.testing.assert_close(net(inputs, given_masks), expected)


@torch.no_grad()
def test_conv_maxout_layer_is_the_largest_of_its_pieces_and_of_its_neighbours() -> None:
    layer = ConvMaxoutLayer(2, maps=3, stride=2)
    randomised(layer)
    inputs = torch.randn(2, 2, 8, 8, generator=generator())
    padded = torch.nn.functional.pad(inputs, (2, 2, 2, 2))
    expected = torch.full((2, 3, 2, 2), -torch.inf)
    for n, i, row, column, j in itertools.product(*map(range, (2, 3, 4, 4, 2))):
        window = padded[n, :, 2 * row : 2 * row + 5, 2 * column : 2 * column + 5]
        piece = (layer.weight[j * 3 + i] * window).sum() + layer.bias[j * 3 + i]
        place = expected[n, i, row // 2, column // 2]
        place.copy_(torch.maximum(place, piece))
    torch.testing.assert_close(layer(inputs), expected)


def test_conv_maxout_network_takes_masks_and_shifts_where_its_layers_are_fed() -> None:
    net = ConvMaxout(classes=3, maps=2, units=4, pieces=2)
    randomised(net, scale=0.1)
    inputs = torch.rand(2, 3, 32, 32, generator=generator())
    shifts = [torch.full((2, width), 0.5) for width in net.layer_widths]
    masks = [torch.full((2, width), 2.0) for width in net.layer_widths]
    maps = net.conv2(net.conv1(2 * (inputs + 0.5))).flatten(1)
    hidden = net.hidden(2 * (maps + 0.5))
    expected = 2 * (hidden + 0.5) @ net.weight.T + net.bias
    torch.testing.assert_close(net(inputs, masks, shifts), expected)


def test_rbf_is_its_formula() -> None:
    net = Rbf(inputs=12, classes=3)
    randomised(net)
    inputs = torch.rand(5, 1, 3, 4, generator=generator())
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for n, row in enumerate(inputs.flatten(1).double()):
        for k in range(3):
            beta = torch.diag(net.log_precisions[k].double().exp())
            away = row - net.centres[k].double()
            expected[n, k] = -(away @ beta @ away)
    torch.testing.assert_close(net(inputs).double(), expected, rtol=1e-5, atol=1e-5)
    assert bool((net(inputs) < 0).all())


def test_rbf_unit_is_certain_at_its_centre() -> None:
    net = Rbf(inputs=12, classes=3)
    randomised(net)
    assert net(net.centres.detach()).diagonal().tolist() == pytest.approx([0.0] * 3, abs=1e-4)


def test_rbf_starts_at_the_class_means_with_exponent_one_on_average() -> None:
    inputs = torch.rand(60, 1, 3, 4, generator=generator())
    labels = torch.arange(60) % 3
    net = Rbf(inputs=12, classes=3)
    net.start(inputs, labels, spread=0.0, generator=generator())
    torch.testing.assert_close(net.centres[1], inputs[labels == 1].flatten(1).mean(0))
    own = net(inputs).gather(1, labels.unsqueeze(1))
    assert float(own.mean().detach()) == pytest.approx(-1.0, rel=1e-4)


def test_logistic_is_a_sigmoid_and_its_loss_a_softplus() -> None:
    net = Logistic(inputs=12)
    randomised(net)
    inputs = torch.rand(6, 12, generator=generator())
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    margins = inputs @ net.weight + net.bias
    outputs = net(inputs)
    torch.testing.assert_close(outputs.softmax(1)[:, 1], torch.sigmoid(margins))
    signs = 2.0 * labels - 1
    softplus = torch.log1p(torch.exp(-signs * margins))
    torch.testing.assert_close(net.outputs.loss(outputs, labels), softplus)


def test_softmax_is_linear() -> None:
    net = Softmax(inputs=12, classes=4)
    randomised(net)
    inputs = torch.rand(6, 1, 3, 4, generator=generator())
    expected = torch.stack([net.weight @ row + net.bias for row in inputs.flatten(1)])
    torch.testing.assert_close(net(inputs), expected)


@pytest.mark.parametrize("architecture", [Softmax, Logistic, Maxout, Rbf])
def test_masking_an_input_is_setting_it_to_zero(architecture: type[Architecture]) -> None:
    net = small(architecture)
    randomised(net)
    inputs = torch.rand(3, 1, 3, 4, generator=generator())
    mask = torch.ones(3, 12)
    mask[:, 2] = 0
    without = inputs.clone()
    without[:, 0, 0, 2] = 0
    masks = [mask, *[None] * (len(net.layer_widths) - 1)]
    torch.testing.assert_close(net(inputs, masks), net(without))


@pytest.mark.parametrize("architecture", [Softmax, Logistic, Maxout, Rbf])
def test_start_depends_on_the_generator_alone(architecture: type[Architecture]) -> None:
    inputs, labels = torch.rand(40, 1, 3, 4, generator=generator()), torch.arange(40) % 10
    states = []
    for seed in (0, 0, 1):
        net = small(architecture)
        randomised(net)
        net.start(inputs, labels, spread=0.1, generator=generator(seed))
        states.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_dropout_masks_keep_the_mean_and_drop_the_share() -> None:
    first, second, third = draw_masks(
        [400, 300, 200], 500, input_rate=0.2, hidden_rate=0.5, generator=generator()
    )
    for mask, rate in ((first, 0.2), (second, 0.5), (third, 0.5)):
        assert mask is not None
        assert sorted(set(mask.flatten().tolist())) == pytest.approx([0.0, 1 / (1 - rate)])
        # 100,000 or more draws: the mean of the mask is within five standard errors of 1.
        error = math.sqrt(rate / (1 - rate) / mask.numel())
        assert float(mask.double().mean()) == pytest.approx(1.0, abs=5 * error)
    assert second is not None
    assert third is not None
    assert not torch.equal(second[:, :200], third)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
    limit=st.floats(1e-2, 1e2),
)
def test_max_norm_bounds_every_row_and_leaves_short_ones(
    seed: int, scale: float, limit: float
) -> None:
    before = scale * torch.randn(6, 5, generator=generator(seed))
    before[0] = 0
    after = before.clone()
    constrain_norms([after], limit)
    lengths = torch.linalg.vector_norm(before, dim=1)
    assert bool((torch.linalg.vector_norm(after, dim=1) <= limit * (1 + 1e-5)).all())
    assert torch.equal(after[lengths <= limit], before[lengths <= limit])
    cosine = torch.nn.functional.cosine_similarity(after[1:], before[1:])
    torch.testing.assert_close(cosine, torch.ones(5))
    again = after.clone()
    constrain_norms([again], limit)
    torch.testing.assert_close(again, after)


def test_sigmoids_on_maxout_are_its_scores_one_by_one() -> None:
    network = MaxoutSigmoid(inputs=12, units=5, pieces=3)
    randomised(network)
    inputs = torch.randn(4, 1, 3, 4, generator=generator())
    scores = network.layers(inputs).double()
    torch.testing.assert_close(network(inputs).double().exp(), 1 / (1 + (-scores).exp()))
    labels = torch.tensor([0, 3, 9, 3])
    own = torch.nn.functional.one_hot(labels, 10).double()
    bernoulli = torch.nn.functional.binary_cross_entropy_with_logits(scores, own, reduction="none")
    loss = network.outputs.loss(network(inputs), labels)
    torch.testing.assert_close(loss.double(), bernoulli.sum(1), rtol=1e-4, atol=1e-5)
    assert network.layer_widths == (12, 5, 5)
    assert len(network.unit_weights()) == 3
