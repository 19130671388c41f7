"""Quantiles and curves of distances, against definitions that anybody can read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.metrics.nearest import MEDIAN, NINE_TENTHS, TENTH, error_curve, error_within, quantile

found = st.floats(0, 4, width=32)
distances = st.lists(found | st.just(math.nan), min_size=1, max_size=40).map(
    lambda values: np.array(values, dtype=np.float32)
)


@given(distances, st.sampled_from([TENTH, MEDIAN, NINE_TENTHS]))
def test_a_quantile_is_an_order_statistic_with_what_was_not_found_last(values, at):
    ordered = sorted(math.inf if math.isnan(each) else each for each in values.tolist())
    expected = ordered[math.floor(at * (len(ordered) - 1))]
    assert quantile(values, at) == (None if math.isinf(expected) else expected)


@given(distances)
def test_quantiles_do_not_cross(values):
    numbers = [quantile(values, at) for at in (TENTH, MEDIAN, NINE_TENTHS)]
    ranks = [math.inf if each is None else each for each in numbers]
    assert ranks == sorted(ranks)


@given(distances)
def test_a_median_misleads_half_at_that_epsilon(values):
    """So many are within the median that half would be, but for the rounding of a count."""
    median = quantile(values, MEDIAN)
    if median is not None:
        assert error_within(values, median) >= 0.5
    else:
        assert np.isnan(values).mean() >= 0.5


@given(distances, found)
def test_the_curve_is_the_error_at_every_epsilon(values, epsilon):
    curve = error_curve(values)
    for place in (epsilon, *curve.epsilons.tolist()):
        assert curve.at(place) == error_within(values, place)


@given(distances)
def test_the_curve_rises_and_ends_at_what_was_found(values):
    curve = error_curve(values)
    assert (np.diff(curve.epsilons) > 0).all()
    assert (np.diff(curve.errors) > 0).all()
    if len(curve.errors):
        assert curve.errors[-1] == np.isfinite(values).mean()


def test_an_epsilon_counts_as_float32_as_distances_do():
    tenth = np.array([0.1], dtype=np.float32)
    assert float(tenth[0]) > 0.1
    assert error_within(tenth, 0.1) == 1.0
    assert error_within(np.nextafter(tenth, np.float32(1)), 0.1) == 0.0


def test_of_no_examples_nothing_is_known():
    nothing = np.array([], dtype=np.float32)
    assert quantile(nothing, MEDIAN) is None
    assert error_within(nothing, 1.0) is None
    assert len(error_curve(nothing).errors) == 0


def test_what_was_not_found_never_shortens_a_distance():
    half = np.array([0.25, 0.5, math.nan, math.nan, math.nan], dtype=np.float32)
    assert quantile(half, TENTH) == pytest.approx(0.25)
    assert quantile(half, MEDIAN) is None
