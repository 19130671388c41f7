"""Laws of the way to a hyperplane inside a box, against a slow reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from gibbon.attacks.fmn import into_ball
from gibbon.attacks.toolkit.linear_boundary import Boundary, dual_size, rivals_of, to_hyperplane
from gibbon.core.threat import Bounds, Norm
from gibbon.metrics.distances import distances

BOX = Bounds(-1.0, 2.0)
SIZE = 5
inside = st.lists(st.floats(BOX.low, BOX.high, width=32), min_size=SIZE, max_size=SIZE)
slopes = st.lists(
    st.sampled_from([0.0, -1.0, 1.0]) | st.floats(-3, 3, width=16), min_size=SIZE, max_size=SIZE
)
gaps = st.floats(-6, 6, width=32)
norms = st.sampled_from(Norm)
boxes = st.sampled_from([BOX, None])


def way(point: list[float], normal: list[float], gap: float, norm: Norm, box: Bounds | None):
    points = torch.tensor([point])
    boundary = Boundary(torch.tensor([gap]), torch.tensor([normal]))
    return points, boundary, to_hyperplane(points, boundary, norm=norm, bounds=box)


def reach(point: list[float], normal: list[float], gap: float, box: Bounds | None) -> float:
    """What is left of the gap once every coordinate has gone as far as it helps."""
    if box is None:
        return 0.0 if any(normal) else abs(gap)
    helped = 0.0
    for x, w in zip(point, normal, strict=True):
        towards = -w if gap > 0 else w
        helped += abs(w) * ((box.high - x) if towards > 0 else (x - box.low))
    return max(abs(gap) - helped, 0.0)


@given(inside, slopes, gaps, norms, boxes)
def test_the_move_ends_on_the_hyperplane_or_as_near_as_the_box_lets_it(
    point, normal, gap, norm, box
):
    points, boundary, move = way(point, normal, gap, norm, box)
    left = abs(float(boundary.gap + (boundary.normal.double() * move).sum()))
    assert left == pytest.approx(reach(point, normal, gap, box), abs=2e-5)
    if box is not None:
        moved = points + move
        assert float(moved.min()) >= box.low - 1e-6
        assert float(moved.max()) <= box.high + 1e-6


@given(inside, slopes, gaps, norms, boxes)
def test_coordinates_without_slope_stay(point, normal, gap, norm, box):
    _, boundary, move = way(point, normal, gap, norm, box)
    assert bool((move[boundary.normal == 0] == 0).all())


def shortest(point: list[float], normal: list[float], gap: float, norm: Norm) -> float:
    """The optimum by a general solver; L∞ and L1 are linear programs."""
    x, w = np.array(point), np.array(normal)
    low, high = BOX.low - x, BOX.high - x
    eye, one = np.eye(SIZE), np.ones((SIZE, 1))
    if norm is Norm.L2:
        solved = minimize(
            lambda move: float(move @ move),
            np.clip(-gap * w / (w @ w), low, high),
            jac=lambda move: 2 * move,
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "eq", "fun": lambda move: gap + w @ move, "jac": lambda _: w},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        return float(np.sqrt(solved.fun)) if solved.success else float("nan")
    limits = one if norm is Norm.LINF else eye  # |move| <= t, or <= t_i
    count = limits.shape[1]
    solved = linprog(
        np.concatenate([np.zeros(SIZE), np.ones(count)]),
        A_ub=np.block([[eye, -limits], [-eye, -limits]]),
        b_ub=np.zeros(2 * SIZE),
        A_eq=np.concatenate([w, np.zeros(count)])[None],
        b_eq=[-gap],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * count],
    )
    return float(solved.fun) if solved.status == 0 else float("nan")


@given(inside, slopes, gaps, norms)
def test_no_shorter_move_gets_there(point, normal, gap, norm):
    if reach(point, normal, gap, BOX) > 0 or not any(abs(w) > 0.05 for w in normal):
        return
    _, _, move = way(point, normal, gap, norm, BOX)
    length = float(distances(move, torch.zeros_like(move), norm=norm))
    best = shortest(point, normal, gap, norm)
    if not np.isnan(best):  # the solver gives up on a few that only just get there
        assert length == pytest.approx(best, rel=1e-3, abs=1e-4)


@given(inside, slopes, gaps, norms)
def test_the_free_move_is_as_long_as_the_dual_norm_says(point, normal, gap, norm):
    _, boundary, move = way(point, normal, gap, norm, None)
    size = float(dual_size(boundary.normal, norm=norm))
    length = float(distances(move, torch.zeros_like(move), norm=norm))
    assert length == pytest.approx(abs(gap) / size if size else 0.0, rel=1e-4, abs=1e-6)


@given(inside, inside, slopes, gaps)
def test_a_hyperplane_is_the_same_seen_from_elsewhere(point, other, normal, gap):
    points, boundary, _ = way(point, normal, gap, Norm.L2, None)
    elsewhere = torch.tensor([other])
    seen = boundary.seen_from(elsewhere, points)
    expected = gap + float((boundary.normal * (elsewhere - points)).sum())
    assert float(seen.gap) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(seen.normal, boundary.normal)


def test_rivals_leave_the_true_class_out_also_among_nan():
    outputs = torch.tensor(
        [[1.0, 4.0, 2.0, 3.0], [torch.nan] * 4, [torch.nan, 1.0, 2.0, torch.nan]]
    )
    labels = torch.tensor([1, 2, 0])
    assert rivals_of(outputs, labels, count=2)[0].tolist() == [3, 2]
    for row, label in zip(rivals_of(outputs, labels).tolist(), labels.tolist(), strict=True):
        assert sorted([*row, label]) == [0, 1, 2, 3]


@given(inside, st.floats(0, 8, width=32), norms)
def test_into_ball_is_the_nearest_point_of_the_ball(change, radius, norm):
    given_change = torch.tensor([change])
    put = into_ball(given_change.clone(), torch.tensor([radius]), norm=norm)
    nowhere = torch.zeros_like(put)
    assert float(distances(put, nowhere, norm=norm)) <= radius * (1 + 1e-5) + 1e-5
    again = into_ball(put.clone(), torch.tensor([radius]), norm=norm)
    torch.testing.assert_close(again, put, rtol=1e-4, atol=1e-5)
    if float(distances(given_change, nowhere, norm=norm)) <= radius:
        torch.testing.assert_close(put, given_change, rtol=0, atol=1e-6)
    # Nearest: the way there makes no acute angle with the way to any point of the ball.
    away = (given_change - put).flatten().double()
    for corner in corners(radius, norm):
        assert float(away @ (corner - put.flatten().double())) <= 1e-3


def corners(radius: float, norm: Norm) -> Tensor:
    signs = torch.cat([torch.eye(SIZE), -torch.eye(SIZE)]).double()
    if norm is Norm.LINF:
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * SIZE).double()
    return radius * signs
