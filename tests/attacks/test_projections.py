"""Laws of the regions: a projection is idempotent, lands inside and moves no further."""

import math

import nets
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gibbon.attacks.toolkit.projections import lengths, region, sparse_unit, sparse_units
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel

SHAPE = (1, 2, 3)
BOX = Bounds(-1.0, 2.0)
values = st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6)
budgets = st.sampled_from(["0", "0.001", "0.3", "1", "10"])
boxes = st.sampled_from([None, BOX])
norms = st.sampled_from(Norm)


def points_of(rows: list[float]) -> Tensor:
    return torch.tensor(rows).view(1, *SHAPE)


def size_of(change: Tensor, norm: Norm) -> Tensor:
    flat = change.flatten(1).double()
    return flat.norm(dim=1, p={Norm.LINF: math.inf, Norm.L2: 2, Norm.L1: 1}[norm])


def assert_inside(points: Tensor, inputs: Tensor, threat: ThreatModel) -> None:
    slack = 1e-6 * (1 + threat.radius)
    assert bool((size_of(points - inputs, threat.norm) <= threat.radius + slack).all())
    if threat.bounds is not None:
        assert float(points.min()) >= threat.bounds.low
        assert float(points.max()) <= threat.bounds.high


@given(values, values, budgets, boxes, norms)
def test_a_projection_lands_inside_and_is_idempotent(start, point, epsilon, box, norm):
    inputs = points_of(start).clamp(BOX.low, BOX.high)
    threat = nets.threat(epsilon, norm=norm, bounds=box)
    allowed = region(inputs, threat=threat)
    once = allowed.project(points_of(point))
    assert_inside(once, inputs, threat)
    twice = allowed.project(once.clone())
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-6 * (1 + threat.radius))


@given(values, values, budgets, boxes, norms)
def test_allowed_points_stay_where_they_are(start, point, epsilon, box, norm):
    inputs = points_of(start).clamp(BOX.low, BOX.high)
    threat = nets.threat(epsilon, norm=norm, bounds=box)
    allowed = region(inputs, threat=threat)
    change = points_of(point) - inputs
    inner = (
        inputs + change * (0.99 * threat.radius / size_of(change, norm).clamp(min=1e-30)).float()
    )
    if box is not None:
        inner = inner.clamp(box.low, box.high)
    torch.testing.assert_close(allowed.project(inner.clone()), inner, rtol=0, atol=1e-6)


@given(values, values, budgets)
def test_the_linf_projection_is_the_nearest_allowed_point(start, point, epsilon):
    inputs = points_of(start).clamp(BOX.low, BOX.high)
    threat = nets.threat(epsilon, bounds=BOX)
    expected = [
        max(min(value, x + threat.radius, BOX.high), x - threat.radius, BOX.low)
        for value, x in zip(point, inputs.flatten().tolist(), strict=True)
    ]
    found = region(inputs, threat=threat).project(points_of(point)).flatten()
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-6)


@given(values, values, budgets)
def test_the_l2_projection_is_the_nearest_point_of_the_ball(start, point, epsilon):
    inputs, points = points_of(start), points_of(point)
    threat = nets.threat(epsilon, norm=Norm.L2, bounds=None)
    change = (points - inputs).double()
    size = change.norm()
    expected = inputs + (change if size <= threat.radius else change * threat.radius / size)
    found = region(inputs, threat=threat).project(points.clone())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


@given(values, norms)
def test_a_unit_step_has_length_one_and_goes_steepest(rows, norm):
    gradient = points_of(rows)
    allowed = region(torch.zeros(1, *SHAPE), threat=nets.threat(norm=norm))
    unit = allowed.unit(gradient.clone())
    if not bool((gradient != 0).any()):
        assert bool((unit == 0).all())
        return
    assert float(size_of(unit, norm)) == pytest.approx(1, rel=1e-5)
    # Hölder: no direction of length 1 gains more than the gradient's dual norm.
    flat = gradient.flatten().double()
    dual = flat.norm(p={Norm.LINF: 1, Norm.L2: 2, Norm.L1: math.inf}[norm])
    assert float((unit.double() * gradient).sum()) == pytest.approx(float(dual), rel=1e-5)


def test_a_unit_step_of_no_gradient_is_no_step_and_no_nan():
    for norm in Norm:
        allowed = region(torch.zeros(2, *SHAPE), threat=nets.threat(norm=norm))
        assert torch.equal(allowed.unit(torch.zeros(2, *SHAPE)), torch.zeros(2, *SHAPE))


@given(st.integers(0, 1000), budgets, boxes, norms)
def test_random_points_are_allowed(key, epsilon, box, norm):
    inputs = nets.random_batch(7, shape=SHAPE, bounds=BOX).inputs
    before = inputs.clone()
    threat = nets.threat(epsilon, norm=norm, bounds=box)
    streams = ExampleStreams.derive(key, torch.arange(7))
    assert_inside(region(inputs, threat=threat).random_point(streams), inputs, threat)
    assert torch.equal(inputs, before)


def test_random_points_fill_the_l2_ball_evenly():
    inputs = torch.zeros(20_000, *SHAPE)
    threat = nets.threat("2", norm=Norm.L2, bounds=None)
    streams = ExampleStreams.derive(1, torch.arange(20_000))
    points = region(inputs, threat=threat).random_point(streams).flatten(1).double()
    # In d dimensions the d-th power of the relative radius is uniform.
    volumes = (points.norm(dim=1) / 2) ** 6
    shares = torch.histc(volumes, bins=10, min=0, max=1) / 20_000
    assert float((shares - 0.1).abs().max()) < 5 * (0.09 / 20_000) ** 0.5
    assert float(points.mean(0).abs().max()) < 5 * 2 / 20_000**0.5


def test_random_points_fill_the_linf_ball_evenly():
    inputs = torch.zeros(20_000, *SHAPE)
    streams = ExampleStreams.derive(1, torch.arange(20_000))
    points = region(inputs, threat=nets.threat("2", bounds=None)).random_point(streams)
    shares = torch.histc(points.flatten(), bins=10, min=-2, max=2) / points.numel()
    assert float((shares - 0.1).abs().max()) < 5 * (0.09 / points.numel()) ** 0.5


def test_lengths_multiply_the_perturbations():
    change = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    assert lengths(change).shape == (2, 1, 1, 1)
    assert lengths(change).flatten().tolist() == [5.0, 0.0]


def slow_l1_projection(x: list[float], point: list[float], radius: float, box) -> list[float]:
    """By bisection on the threshold: 200 halvings of an interval that holds it."""
    low, high = (-math.inf, math.inf) if box is None else (box.low, box.high)

    def moved(threshold: float) -> list[float]:
        changes = []
        for start, end in zip(x, point, strict=True):
            room = high - start if end > start else start - low
            size = min(max(abs(end - start) - threshold, 0.0), room)
            changes.append(math.copysign(size, end - start))
        return changes

    def length(threshold: float) -> float:
        return math.fsum(abs(each) for each in moved(threshold))

    short, long = max(abs(a - b) for a, b in zip(x, point, strict=True)), 0.0
    if length(0.0) <= radius:
        return moved(0.0)
    for _ in range(200):
        middle = (short + long) / 2
        short, long = (middle, long) if length(middle) <= radius else (short, middle)
    return moved(short)


@given(values, values, budgets, boxes)
def test_the_l1_projection_is_that_of_a_bisection(start, point, epsilon, box):
    inputs = points_of(start).clamp(BOX.low, BOX.high)
    threat = nets.threat(epsilon, norm=Norm.L1, bounds=box)
    found = region(inputs, threat=threat).project(points_of(point)) - inputs
    expected = slow_l1_projection(inputs.flatten().tolist(), point, threat.radius, box)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected), rtol=0, atol=5e-6)


def test_the_l1_projection_is_the_solution_of_the_quadratic_program():
    draws = nets.generator(8)
    inputs = torch.rand(5, *SHAPE, generator=draws) * BOX.width + BOX.low
    points = torch.randn(5, *SHAPE, generator=draws) * 3
    threat = nets.threat("1.5", norm=Norm.L1, bounds=BOX)
    found = region(inputs, threat=threat).project(points.clone())
    for x, point, projected in zip(inputs, points, found, strict=True):
        x, point = x.flatten().double().numpy(), point.flatten().double().numpy()
        # The change as a difference of two parts that are not negative, so that L1 is linear.
        solution = scipy.optimize.minimize(
            lambda parts, far=point - x: float(((parts[:6] - parts[6:] - far) ** 2).sum()),
            np.zeros(12),
            jac=lambda parts, far=point - x: (
                np.concatenate([parts[:6] - parts[6:] - far, parts[6:] - parts[:6] + far]) * 2
            ),
            bounds=[(0, BOX.high - each) for each in x] + [(0, each - BOX.low) for each in x],
            constraints={"type": "ineq", "fun": lambda parts: 1.5 - parts.sum()},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert solution.success
        change = solution.x[:6] - solution.x[6:]
        np.testing.assert_allclose(projected.flatten().numpy() - x, change, atol=2e-5)


def test_the_l1_projection_keeps_its_budget_on_large_pictures():
    inputs = torch.rand(2, 150_528, generator=nets.generator(1))
    points = inputs + torch.randn(2, 150_528, generator=nets.generator(2))
    threat = nets.threat("60", norm=Norm.L1)
    change = region(inputs, threat=threat).project(points) - inputs
    assert change.double().abs().sum(1).tolist() == pytest.approx([60, 60], abs=1e-3)


def test_random_points_fill_the_l1_ball_evenly():
    inputs = torch.zeros(20_000, *SHAPE)
    streams = ExampleStreams.derive(1, torch.arange(20_000))
    allowed = region(inputs, threat=nets.threat("2", norm=Norm.L1, bounds=None))
    points = allowed.random_point(streams).flatten(1).double()
    volumes = (points.abs().sum(1) / 2) ** 6
    shares = torch.histc(volumes, bins=10, min=0, max=1) / 20_000
    assert float((shares - 0.1).abs().max()) < 5 * (0.09 / 20_000) ** 0.5
    # Each coordinate's share of the length has the same mean, and both signs are as frequent.
    sizes = points.abs().mean(0)
    assert float((sizes / sizes.mean() - 1).abs().max()) < 0.05
    assert float(points.mean(0).abs().max()) < 5 * 2 / 20_000**0.5


@given(values, st.floats(0.01, 1))
def test_a_sparse_step_moves_the_largest_coordinates_alike(rows, share):
    gradient = points_of(rows)
    unit = sparse_unit(gradient, share=share).flatten()
    moving = int((unit != 0).sum())
    sizes = gradient.flatten().abs()
    least = min(math.ceil(share * 6 - 1e-3), int((sizes > 0).sum()))
    assert least <= moving <= int((sizes > 0).sum())
    if moving:
        assert float(unit.abs().sum()) == pytest.approx(1)
        assert float(sizes[unit != 0].min()) >= float(sizes[unit == 0].max()) if moving < 6 else 1
        assert torch.equal(unit.sign(), gradient.flatten().sign() * (unit != 0))


def test_the_share_that_moves_may_differ_from_example_to_example():
    gradient = torch.arange(1.0, 11.0).repeat(3, 1)
    unit = sparse_units(gradient, shares=torch.tensor([0.1, 0.45, 1.0]))
    assert (unit != 0).sum(1).tolist() == [1, 5, 10]


@given(values, budgets, boxes, norms)
def test_a_region_of_some_examples_is_that_of_the_whole(point, epsilon, box, norm):
    inputs = nets.random_batch(5, shape=SHAPE, bounds=BOX).inputs
    points = inputs + points_of(point)
    allowed = region(inputs, threat=nets.threat(epsilon, norm=norm, bounds=box))
    index = torch.tensor([3, 1])
    whole = allowed.project(points.clone())
    # A norm may be summed in another order for fewer rows.
    torch.testing.assert_close(allowed.take(index).project(points[index]), whole[index])
