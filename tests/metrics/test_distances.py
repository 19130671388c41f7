"""Distances against loops in Python's own arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.threat import Norm
from gibbon.metrics.distances import distances

points = st.lists(
    st.lists(st.floats(-10, 10, width=32), min_size=6, max_size=6), min_size=1, max_size=5
)
SLOW = {
    Norm.LINF: lambda change: max(abs(each) for each in change),
    Norm.L2: lambda change: math.sqrt(math.fsum(each * each for each in change)),
    Norm.L1: lambda change: math.fsum(abs(each) for each in change),
}


@pytest.mark.parametrize("norm", Norm)
@given(rows=points, shift=st.floats(-1, 1, width=32))
def test_a_distance_is_the_norm_of_the_change(norm, rows, shift):
    candidates = torch.tensor(rows)
    inputs = torch.full_like(candidates, shift)
    shaped = candidates.view(-1, 1, 2, 3), inputs.view(-1, 1, 2, 3)
    expected = [SLOW[norm](row) for row in (candidates - inputs).double().tolist()]
    torch.testing.assert_close(
        distances(*shaped, norm=norm), torch.tensor(expected, dtype=torch.float32)
    )


@pytest.mark.parametrize("norm", Norm)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 3, 100])
def test_one_bad_coordinate_makes_a_bad_distance(norm, bad, place):
    candidates = torch.rand(3, 101)
    candidates[1, place] = bad
    found = distances(candidates, torch.rand(3, 101), norm=norm)
    assert torch.isfinite(found).tolist() == [True, False, True]


def test_nothing_is_changed_in_place():
    candidates, inputs = torch.full((2, 3), -1.0), torch.zeros(2, 3)
    for norm in Norm:
        distances(candidates, inputs, norm=norm)
    assert candidates.tolist() == [[-1.0] * 3] * 2
    assert inputs.tolist() == [[0.0] * 3] * 2
