"""Bootstrap intervals against SciPy's, on the same samples."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import bootstrap

from gibbon.core.errors import RequestError
from gibbon.metrics.bootstrap import Bootstrap, quantile_interval
from gibbon.metrics.nearest import MEDIAN, quantile

SAMPLES = 499
LEVELS = [0.9, 0.95]


def confidences(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(5, 1, count)


def scipys(statistic, *columns, seed=7, confidence=0.95, samples=SAMPLES):
    """SciPy's BCa interval on samples from this seed, which are those of `Bootstrap`."""
    found = bootstrap(
        columns, statistic, paired=len(columns) > 1, n_resamples=samples, method="BCa",
        confidence_level=confidence, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return found.confidence_interval


@pytest.mark.parametrize("confidence", LEVELS)
@pytest.mark.parametrize("count", [2, 10, 57, 200])
def test_the_interval_of_a_mean_is_scipys(count, confidence):
    values = confidences(count, count)
    ours = Bootstrap(count, seed=7, resamples=SAMPLES).mean(values, confidence=confidence)
    theirs = scipys(np.mean, values, confidence=confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize("count", [20, 57, 200])
def test_the_interval_of_a_mean_over_marked_examples_is_scipys(count):
    values, marked = confidences(count, count), np.arange(count) % 3 == 0

    def ratio(values, marked, axis=-1):
        return (values * marked).sum(axis) / marked.sum(axis)

    ours = Bootstrap(count, seed=7, resamples=SAMPLES).mean(values, among=marked)
    theirs = scipys(ratio, values, marked.astype(float))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize("count", [11, 20, 101, 300])
def test_the_interval_of_a_median_is_scipys_with_many_samples(count):
    values = np.random.default_rng(count).exponential(size=count)

    def lower_median(values, axis=-1):
        return np.take(np.sort(values, axis), (values.shape[axis] - 1) // 2, axis)

    ours = quantile_interval(values, MEDIAN)
    theirs = scipys(lower_median, values, samples=20_000)
    # Both ends are values; those of SciPy vary with its samples by a rank at most.
    ranks = [np.searchsorted(np.sort(values), each) for each in (ours.low, ours.high)]
    others = [np.searchsorted(np.sort(values), each) for each in theirs]
    assert np.abs(np.subtract(ranks, others)).max() <= 1


def test_examples_that_are_not_marked_do_not_matter():
    values, marked = confidences(1, 50), np.arange(50) < 20
    other = np.where(marked, values, np.nan)
    draws = Bootstrap(50, seed=0, resamples=99)
    assert draws.mean(values, among=marked) == draws.mean(other, among=marked)


def test_the_samples_follow_from_the_seed_and_not_from_earlier_calls():
    values = confidences(3, 40)
    one, other = Bootstrap(40, seed=1), Bootstrap(40, seed=1)
    other.mean(values**2)
    assert one.mean(values) == other.mean(values)
    assert one.mean(values) != Bootstrap(40, seed=2).mean(values)


def test_large_sets_are_drawn_in_blocks_and_have_the_same_samples(monkeypatch):
    values = confidences(5, 64)
    whole = Bootstrap(64, seed=3, resamples=100).mean(values)
    monkeypatch.setattr("gibbon.metrics.bootstrap.KEPT", 64 * 16 * 7)
    parts = Bootstrap(64, seed=3, resamples=100).mean(values)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-7)


@given(arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 1)))
def test_an_interval_of_a_mean_lies_within_the_values(values):
    interval = Bootstrap(len(values), seed=0, resamples=99).mean(values)
    assert values.min() - 1e-6 <= interval.low <= interval.high <= values.max() + 1e-6


@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 9) | st.just(np.nan)))
def test_an_interval_of_a_quantile_holds_it_and_ends_at_values(values):
    for at in (Fraction(1, 10), MEDIAN, Fraction(9, 10)):
        estimate, interval = quantile(values.astype(np.float32), at), quantile_interval(values, at)
        if estimate is None:
            assert interval is None
            continue
        assert interval.low <= np.float64(estimate) + 1e-6
        assert interval.high >= np.float64(estimate) - 1e-6
        for end in (interval.low, interval.high):
            assert end in values or end == np.inf


def test_a_median_interval_holds_the_median_as_often_as_it_says():
    random = np.random.default_rng(2)
    held, runs = 0, 2000
    for _ in range(runs):
        interval = quantile_interval(random.exponential(size=60), MEDIAN)
        held += interval.low <= np.log(2) <= interval.high
    assert 0.91 <= held / runs <= 0.97


def test_equal_values_have_an_interval_of_no_width():
    assert Bootstrap(9, seed=0).mean(np.full(9, 0.75)).low == 0.75
    assert quantile_interval(np.full(9, 0.75), MEDIAN).high == 0.75


def test_there_is_no_interval_without_spread():
    marked = np.arange(9) < 1
    assert Bootstrap(9, seed=0).mean(np.arange(9.0), among=marked) is None
    assert Bootstrap(0, seed=0).mean(np.empty(0)) is None
    assert quantile_interval(np.ones(1), MEDIAN) is None
    assert quantile_interval(np.array([1.0, np.nan, np.nan]), MEDIAN) is None


def test_there_is_no_interval_of_other_examples():
    with pytest.raises(RequestError, match="4 values of 5 examples"):
        Bootstrap(5, seed=0).mean(np.ones(4))
    with pytest.raises(RequestError, match="no 0 samples"):
        Bootstrap(5, seed=0, resamples=0)
