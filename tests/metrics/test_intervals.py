"""Wilson intervals against SciPy's, and intervals over draws of a random model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import wilson_interval

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
