"""Wilson intervals against SciPy's, and intervals over draws of a random model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import interval_over_draws, wilson_interval

counts = st.integers(1, 10**6).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.just(total))
)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_scipys(counted, confidence):
    count, total = counted
    expected = binomtest(count, total).proportion_ci(confidence, method="wilson")
    interval = wilson_interval(count, total, confidence=confidence)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)


@given(counts)
def test_the_interval_holds_the_rate_and_stays_in_0_to_1(counted):
    count, total = counted
    interval = wilson_interval(count, total)
    assert 0 <= interval.low <= count / total <= interval.high <= 1


@given(counts)
def test_the_interval_of_the_rest_is_its_mirror(counted):
    count, total = counted
    one, other = wilson_interval(count, total), wilson_interval(total - count, total)
    assert one.low == pytest.approx(1 - other.high, abs=1e-12)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (1, 0), (-1, 5), (6, 5), (0, -1)])
def test_there_is_no_rate_of_nothing(count, total):
    with pytest.raises(RequestError, match=f"no rate of {count} in {total}"):
        wilson_interval(count, total)


@given(st.integers(0, 50), st.integers(1, 9))
def test_draws_that_agree_have_the_interval_of_one(count, draws):
    assert interval_over_draws([count] * draws, 50) == wilson_interval(count, 50)


draws = st.lists(st.integers(0, 200), min_size=2, max_size=20)


@given(draws)
def test_draws_that_differ_widen_the_interval(counts):
    total, mean = 200, sum(counts) / len(counts)
    interval = interval_over_draws(counts, total)
    assert 0 <= interval.low <= mean / total + 1e-12
    assert mean / total - 1e-12 <= interval.high <= 1
    if mean.is_integer():
        fixed = wilson_interval(int(mean), total)
        assert interval.low <= fixed.low + 1e-12
        assert interval.high >= fixed.high - 1e-12


@given(draws)
def test_the_order_of_draws_does_not_matter(counts):
    one, other = interval_over_draws(counts, 200), interval_over_draws(counts[::-1], 200)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


@pytest.mark.parametrize(("chance", "shift"), [(1.0, 0.0), (0.6, 0.0), (0.6, 0.3), (0.6, 0.6)])
def test_an_interval_over_draws_holds_the_error_as_often_as_it_says(chance, shift):
    # Some examples have a chance to be misclassified; a draw raises or lowers all chances at once.
    random = np.random.default_rng(0)
    held, runs, examples, draws, error = 0, 800, 60, 6, 0.3
    for _ in range(runs):
        weak = random.random(examples) < error / chance
        chances = weak * chance * (1 + shift * random.choice([-1, 1], (draws, 1)))
        counts = (random.random((draws, examples)) < chances).sum(axis=1)
        interval = interval_over_draws(counts.tolist(), examples)
        held += interval.low <= error <= interval.high
    # Chances that are not 0 or 1 make it wider than needed; nothing makes it narrower.
    assert held / runs >= 0.93


@pytest.mark.parametrize(("counts", "total"), [([], 5), ([6], 5), ([-1, 0], 5), ([0], 0)])
def test_there_is_no_interval_over_no_draws(counts, total):
    with pytest.raises(RequestError, match="no "):
        interval_over_draws(counts, total)
