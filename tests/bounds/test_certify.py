"""Bounds against sampled points, exactly solved networks, closed forms, and laws."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from solved import PIXELS, drawn, images, margins, sampled, smallest_margin, threat
from torch import Tensor, nn
from torch.nn import functional

from gibbon.bounds.certify import certify
from gibbon.bounds.tracing import trace
from gibbon.core.threat import Norm
from gibbon.records.proofs import ProofMethod

SHAPE = (1, 8, 8)
CLASSES = 4


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pieces = nn.Linear(64, 3 * 7)
        self.last = nn.Linear(7, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.pieces(inputs.flatten(1)).view(-1, 3, 7).amax(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first((inputs - 0.5) / 0.25)))
        hidden = functional.relu(hidden + self.second(hidden))
        return self.last(functional.adaptive_avg_pool2d(hidden, 1).flatten(1))


class PairMaximum(nn.Module):
    """Sorts pairs of units, as networks with a small Lipschitz constant do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 8)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        one, two = self.first(inputs.flatten(1)).chunk(2, dim=1)
        return self.last(torch.cat([torch.maximum(one, two), torch.minimum(one, two)], dim=1))


def nets() -> dict[str, nn.Module]:
    return {
        "linear": nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)),
        "relu": nn.Sequential(
            nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4)
        ),
        "conv": nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1),
            nn.BatchNorm2d(3),
            nn.LeakyReLU(0.1, inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(12, CLASSES),
        ),
        "average": nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.ReLU6(),
            nn.AvgPool2d(3, 2, 1),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(48, CLASSES),
        ),
        "overlap": nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(18, CLASSES)
        ),
        "smooth": nn.Sequential(
            nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(),
            nn.Linear(5, CLASSES),
        ),
        "maxout": Maxout(),
        "residual": Residual(),
        "pairs": PairMaximum(),
    }  # fmt: skip


NETS = tuple(nets())
METHODS: tuple[ProofMethod, ...] = ("ibp", "crown")


def bound(
    net: nn.Module, inputs: Tensor, labels: Tensor, norm: Norm, epsilon: float, method: ProofMethod
) -> Tensor:
    network = trace(net, inputs)
    model = threat(norm, epsilon)
    return certify(network, inputs, labels, threat=model, bounds=PIXELS, method=method).margin


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", NETS)
def test_no_point_crosses_a_bound_and_lines_are_never_worse(name: str, norm: Norm) -> None:
    net = drawn(nets()[name], seed=3, spread=2.0)
    inputs = images(5, *SHAPE)
    labels = net(inputs).argmax(1)
    for epsilon in (0.01, 0.1, 0.5):
        model = threat(norm, epsilon * {"linf": 1, "l2": 3, "l1": 8}[norm.value])
        ibp, crown = (
            certify(trace(net, inputs), inputs, labels, threat=model, bounds=PIXELS, method=each)
            for each in METHODS
        )
        assert bool((crown.margin >= ibp.margin).all())
        assert bool((crown.proved == (crown.margin > 0)).all())
        for corners in (True, False):
            for points in sampled(inputs, model, count=40, corners=corners):
                assert bool((margins(net(points), labels) >= crown.margin).all())


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", ["relu", "conv", "maxout", "residual", "pairs"])
def test_a_gradient_attack_does_not_cross_a_bound(name: str, norm: Norm) -> None:
    net = drawn(nets()[name], seed=5, spread=2.0)
    inputs = images(4, *SHAPE, seed=1)
    labels = net(inputs).argmax(1)
    epsilon = 0.05 * {"linf": 1, "l2": 4, "l1": 10}[norm.value]
    lowest = bound(net, inputs, labels, norm, epsilon, "crown")
    points = inputs.clone()
    for _ in range(30):
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(margins(net(leaf), labels).sum(), leaf)
        flat = gradient.flatten(1)
        step = {
            Norm.LINF: flat.sign(),
            Norm.L2: flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12),
            Norm.L1: functional.one_hot(flat.abs().argmax(1), flat.shape[1]) * flat.sign(),
        }[norm]
        moved = (points - epsilon / 10 * step.view_as(points)) - inputs
        length = {
            Norm.LINF: moved.flatten(1).abs().amax(1),
            Norm.L2: moved.flatten(1).norm(dim=1),
            Norm.L1: moved.flatten(1).abs().sum(1),
        }[norm]
        shrink = (epsilon / length.clamp(min=1e-12)).clamp(max=1).view(-1, 1, 1, 1)
        points = (inputs + moved * shrink).clamp(0, 1)
        assert bool((margins(net(points), labels) >= lowest).all())


@pytest.mark.parametrize("seed", range(6))
def test_bounds_lie_below_the_exact_margin_of_small_networks_and_near_it(seed: int) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    drawn(net, seed=seed, spread=1.5)
    inputs = images(3, 4, seed=seed)
    labels = net(inputs).argmax(1)
    for epsilon, far in ((0.02, 0.01), (0.1, 0.25), (0.3, 3.0)):
        model = threat(Norm.LINF, epsilon)
        exact = torch.tensor(
            [
                smallest_margin(net, each, int(label), model)
                for each, label in zip(inputs, labels, strict=True)
            ]
        )
        ibp = bound(net, inputs, labels, Norm.LINF, epsilon, "ibp")
        crown = bound(net, inputs, labels, Norm.LINF, epsilon, "crown")
        assert bool((ibp <= crown).all())
        assert bool((crown <= exact + 1e-9).all())
        assert float((exact - crown).max()) < far


def test_one_hidden_layer_is_exact_when_no_unit_changes_its_sign() -> None:
    net = drawn(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), seed=1)
    net[0].bias.fill_(5.0)
    inputs, labels = images(3, 4), torch.tensor([0, 1, 2])
    crown = bound(net, inputs, labels, Norm.LINF, 0.1, "crown")
    exact = [
        smallest_margin(net, each, int(label), threat(Norm.LINF, 0.1))
        for each, label in zip(inputs, labels, strict=True)
    ]
    torch.testing.assert_close(crown, torch.tensor(exact, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", list(Norm))
def test_a_linear_model_without_a_box_has_the_margin_of_the_dual_norm(norm: Norm) -> None:
    net = drawn(nets()["linear"], seed=2)
    inputs = images(6, *SHAPE)
    labels = net(inputs).argmax(1)
    weight = net[1].weight.double()  # type: ignore[index]
    model = threat(norm, 0.2, clip=False)
    found = certify(
        trace(net, inputs), inputs, labels, threat=model, bounds=PIXELS, method="exact"
    ).margin
    outputs = net(inputs).double()
    dual = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: torch.inf}[norm]
    expected = torch.full((6,), torch.inf, dtype=torch.float64)
    for row, label in enumerate(labels):
        for other in set(range(CLASSES)) - {int(label)}:
            difference = weight[label] - weight[other]
            least = outputs[row, label] - outputs[row, other] - 0.2 * difference.norm(p=dual)
            expected[row] = torch.minimum(expected[row], least)
    assert bool((found <= expected + 1e-6).all())
    torch.testing.assert_close(found, expected, atol=3e-4, rtol=0)


@pytest.mark.parametrize("norm", list(Norm))
def test_a_linear_model_in_a_box_has_a_point_that_reaches_its_bound(norm: Norm) -> None:
    net = drawn(nn.Sequential(nn.Linear(6, 2)), seed=4, spread=2.0)
    inputs = torch.tensor([[0.0, 1.0, 0.02, 0.97, 0.5, 0.5]])
    labels = net(inputs).argmax(1)
    epsilon = {"linf": 0.1, "l2": 0.3, "l1": 0.4}[norm.value]
    found = certify(
        trace(net, inputs), inputs, labels, threat=threat(norm, epsilon), bounds=PIXELS,
        method="exact",
    ).margin  # fmt: skip
    label = int(labels)
    slope = (net[0].weight[label] - net[0].weight[1 - label]).double()
    # The best of many points whose coordinates move as the dual problem says.
    best = torch.inf
    for weight in torch.logspace(-2, 2, 1000 if norm is Norm.L2 else 1, dtype=torch.float64):
        if norm is Norm.LINF:
            move = torch.full((6,), epsilon, dtype=torch.float64)
        elif norm is Norm.L2:
            move = slope.abs() / weight
        else:
            order = slope.abs().argsort(descending=True)
            room = torch.where(slope > 0, inputs[0], 1 - inputs[0]).double()
            move = torch.zeros(6, dtype=torch.float64)
            left = epsilon
            for place in order:
                move[place] = min(left, float(room[place]))
                left -= float(move[place])
        point = (inputs[0].double() - move * slope.sign()).clamp(0, 1)
        length = (point - inputs[0]).norm(p={"linf": torch.inf, "l2": 2, "l1": 1}[norm.value])
        if length <= epsilon + 1e-9:
            value = net(point.float().unsqueeze(0))
            best = min(best, float(value[0, label] - value[0, 1 - label]))
    assert float(found) <= best + 1e-6
    assert best - float(found) < 5e-3


@given(seed=st.integers(0, 200), name=st.sampled_from(NETS), norm=st.sampled_from(list(Norm)))
@settings(max_examples=15)
def test_intervals_only_widen_with_epsilon(seed: int, name: str, norm: Norm) -> None:
    net = drawn(nets()[name], seed=seed, spread=2.0)
    inputs, labels = images(2, *SHAPE, seed=seed), torch.tensor([0, 1])
    found = [bound(net, inputs, labels, norm, each, "ibp") for each in (0.0, 0.01, 0.1, 0.4)]
    for less, more in pairwise(found):
        assert bool((more <= less).all())


@given(seed=st.integers(0, 200), name=st.sampled_from(NETS), norm=st.sampled_from(list(Norm)))
@settings(max_examples=15)
def test_at_epsilon_zero_a_bound_is_the_clean_margin(seed: int, name: str, norm: Norm) -> None:
    net = drawn(nets()[name], seed=seed, spread=2.0)
    inputs, labels = images(2, *SHAPE, seed=seed), torch.tensor([0, 3])
    clean = margins(net(inputs), labels).double()
    for method in METHODS:
        found = bound(net, inputs, labels, norm, 0.0, method)
        assert bool((found <= clean).all())
        torch.testing.assert_close(found, clean, atol=5e-3, rtol=0)


@given(
    seed=st.integers(0, 200),
    name=st.sampled_from(NETS),
    norm=st.sampled_from(list(Norm)),
    epsilon=st.floats(0, 0.5),
)
@settings(max_examples=15)
def test_no_random_point_crosses_a_bound(seed: int, name: str, norm: Norm, epsilon: float) -> None:
    net = drawn(nets()[name], seed=seed, spread=3.0)
    inputs, labels = images(2, *SHAPE, seed=seed), torch.tensor([2, 1])
    lowest = bound(net, inputs, labels, norm, epsilon, "crown")
    for points in sampled(inputs, threat(norm, epsilon), count=8, seed=seed):
        assert bool((margins(net(points), labels) >= lowest).all())


def test_a_batch_is_bounded_as_its_examples_are() -> None:
    net = drawn(nets()["conv"], seed=1)
    inputs, labels = images(5, *SHAPE), torch.tensor([0, 1, 2, 3, 0])
    together = bound(net, inputs, labels, Norm.LINF, 0.05, "crown")
    alone = torch.cat(
        [
            bound(net, inputs[each : each + 1], labels[each : each + 1], Norm.LINF, 0.05, "crown")
            for each in range(5)
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_an_exact_bound_needs_an_affine_network() -> None:
    net = drawn(nets()["relu"], seed=1)
    inputs = images(1, *SHAPE)
    with pytest.raises(ValueError, match="not affine"):
        bound(net, inputs, torch.tensor([0]), Norm.LINF, 0.1, "exact")


def test_float32_rounding_is_part_of_a_bound() -> None:
    # 1 + 1e-8 is 1 in float32: the margin of 1e-8 that exact arithmetic finds is none.
    net = nn.Linear(2, 2).requires_grad_(False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 1e-8], [1.0, 0.0]]))
        net.bias.zero_()
    inputs, labels = torch.ones(1, 2), torch.tensor([0])
    assert float(margins(net(inputs), labels)) == 0.0
    found = certify(
        trace(net, inputs), inputs, labels, threat=threat(Norm.LINF, 0.0, clip=False),
        bounds=PIXELS, method="exact",
    )  # fmt: skip
    assert not bool(found.proved)
    assert float(found.margin) < 0
