"""Linearity of outputs along a direction: known lines, bends and classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.errors import RequestError
from gibbon.metrics.linearity import first_error, linear_share, steadiness

EPSILONS = np.linspace(-2, 3, 21)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100))
def test_lines_are_linear_whatever_their_slopes(seed: int, scale: float) -> None:
    slope, start = np.random.default_rng(seed).standard_normal((2, 3, 1, 4))
    lines = scale * (start + slope * EPSILONS[None, :, None])
    assert linear_share(lines, EPSILONS) == pytest.approx(np.ones(3))


def test_the_share_is_that_of_a_regression() -> None:
    outputs = np.random.default_rng(0).standard_normal((5, len(EPSILONS), 3))
    design = np.stack([np.ones_like(EPSILONS), EPSILONS], axis=1)
    for found, own in zip(linear_share(outputs, EPSILONS), outputs, strict=True):
        _, rest, *_ = np.linalg.lstsq(design, own, rcond=None)
        expected = 1 - rest.sum() / np.square(own - own.mean(0)).sum()
        assert found == pytest.approx(expected)


def test_outputs_that_do_not_change_are_linear_and_two_points_no_line() -> None:
    assert linear_share(np.full((2, 21, 3), 7.0), EPSILONS).tolist() == [1.0, 1.0]
    with pytest.raises(RequestError, match="three epsilons"):
        linear_share(np.zeros((1, 3, 1)), np.array([0.0, 0.0, 1.0]))


def test_errors_below_zero_are_not_first() -> None:
    epsilons = np.array([-1.0, 0.0, 1.0, 2.0])
    wrong = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    assert first_error(wrong, epsilons).tolist() == [2.0, 0.0, np.inf]


def test_the_class_after_the_first_error() -> None:
    epsilons = np.arange(4.0)
    predicted = np.array([[0, 3, 3, 5], [0, 0, 0, 0]])
    found = steadiness(predicted, epsilons, start=np.array([1.0, np.inf]))
    assert found[0] == pytest.approx(2 / 3)
    assert np.isnan(found[1])
