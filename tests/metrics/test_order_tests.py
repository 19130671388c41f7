"""Tests of an order: exact tests where they apply, and the variance over examples and trainings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gibbon.core.errors import RequestError
from gibbon.metrics.order_tests import (
    BINOMIAL,
    MCNEMAR,
    ONE_SAMPLE,
    OVER_TRAININGS,
    PAIRED,
    UNPAIRED,
    TrainingValues,
    compare_measures,
    interval_over_trainings,
)
from gibbon.metrics.paired_tests import mcnemar


def observed(values: np.ndarray, counted: np.ndarray | None = None) -> TrainingValues:
    everything = np.ones(len(values), dtype=bool)
    return TrainingValues(
        np.asarray(values, dtype=float), everything if counted is None else counted
    )


def draws(rate: float, *, seed: int, count: int = 2_000) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < rate).astype(float)


def test_two_errors_of_the_same_examples_are_compared_by_mcnemar() -> None:
    one, other = draws(0.3, seed=0), draws(0.35, seed=1)
    found = compare_measures([observed(one)], [observed(other)], paired=True)
    assert found is not None
    only_one, only_other = ((one > other).sum(), (other > one).sum())
    assert (found.test, found.p_value) == (MCNEMAR, mcnemar(int(only_one), int(only_other)))
    assert found.difference == pytest.approx(one.mean() - other.mean())
    assert found.interval.low < found.difference < found.interval.high


def test_an_error_is_compared_with_a_constant_by_the_binomial_test() -> None:
    values = draws(0.3, seed=2)
    found = compare_measures([observed(values)], 0.25, paired=False)
    assert found is not None
    expected = stats.binomtest(int(values.sum()), len(values), 0.25).pvalue
    assert (found.test, found.p_value) == (BINOMIAL, pytest.approx(expected))


def test_means_of_the_same_examples_agree_with_the_paired_t_test() -> None:
    one, other = np.random.default_rng(3).random((2, 500))
    found = compare_measures([observed(one)], [observed(other)], paired=True)
    assert found is not None
    expected = stats.ttest_rel(one, other)
    assert found.test == PAIRED
    assert found.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


def test_means_of_different_examples_agree_with_welchs_t_test() -> None:
    random = np.random.default_rng(4)
    one, other = random.random(400), 0.9 * random.random(300)
    found = compare_measures([observed(one)], [observed(other)], paired=False)
    assert found is not None
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert (found.test, found.p_value) == (UNPAIRED, pytest.approx(expected.pvalue))
    alone = compare_measures([observed(one)], 0.45, paired=False)
    assert alone is not None
    assert (alone.test, alone.p_value) == (
        ONE_SAMPLE,
        pytest.approx(stats.ttest_1samp(one, 0.45).pvalue),
    )


def test_a_mean_over_some_examples_has_the_variance_of_a_ratio() -> None:
    values, counted = draws(0.4, seed=5), draws(0.5, seed=6) > 0
    means = []
    random = np.random.default_rng(7)
    for _ in range(400):
        rows = random.integers(0, len(values), len(values))
        means.append(values[rows][counted[rows]].mean())
    found = compare_measures([observed(values, counted)], 0.0, paired=False)
    assert found is not None
    assert found.first == pytest.approx(values[counted].mean())
    half = (found.interval.high - found.interval.low) / 2
    assert half == pytest.approx(1.96 * np.std(means), rel=0.12)


def test_the_spread_over_trainings_decides_if_it_is_the_larger() -> None:
    """Every pair of networks differs significantly on its examples; the recipes do not."""
    first = [observed(draws(rate, seed=10 + i)) for i, rate in enumerate((0.10, 0.30, 0.50))]
    second = [observed(draws(rate, seed=20 + i)) for i, rate in enumerate((0.20, 0.35, 0.45))]
    alone = compare_measures(first[:1], second[:1], paired=True)
    several = compare_measures(first, second, paired=True)
    assert alone is not None
    assert several is not None
    assert alone.p_value < 1e-6 < 0.5 < several.p_value
    assert several.test == PAIRED + OVER_TRAININGS


def test_trainings_that_agree_leave_the_variance_of_the_examples() -> None:
    one, other = draws(0.3, seed=8), draws(0.32, seed=9)
    single = compare_measures([observed(one)], [observed(other)], paired=True)
    same = compare_measures([observed(one)] * 3, [observed(other)] * 3, paired=True)
    assert single is not None
    assert same is not None
    assert same.interval.low == pytest.approx(single.interval.low)
    assert same.interval.high == pytest.approx(single.interval.high)
    assert same.p_value == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_measures_without_spread() -> None:
    nothing, everything = np.zeros(50), np.ones(50)
    far = compare_measures([observed(everything)] * 2, [observed(nothing)] * 2, paired=True)
    near = compare_measures([observed(nothing)] * 2, [observed(nothing)] * 2, paired=True)
    assert far is not None
    assert near is not None
    assert (far.p_value, near.p_value) == (2.0**-49, 1.0)
    assert (far.interval.low, far.interval.high) == (pytest.approx(0.025 ** (1 / 50)), 1.0)


@pytest.mark.parametrize(("count", "least"), [(1, 1.0), (2, 0.5), (3, 0.25)])
def test_few_examples_prove_nothing_however_alike_they_are(count: int, least: float) -> None:
    """Confidences on the few mistakes of a network, against even odds and against another's."""
    counted = np.arange(1000) < count
    sure = observed(0.9 + 1e-6 * np.arange(1000), counted)
    other = observed(np.full(1000, 0.5), np.arange(1000) < 500)
    for second in (0.5, [other]):
        for trainings in (1, 3):
            found = compare_measures([sure] * trainings, second, paired=second != 0.5)
            assert found is not None
            assert found.p_value == pytest.approx(least, abs=1e-9) or found.p_value > least
            assert found.interval.low < found.difference


def test_nothing_to_count_is_no_test_and_no_training_an_error() -> None:
    none = observed(np.ones(3), np.zeros(3, dtype=bool))
    assert compare_measures([none], [observed(np.ones(3))], paired=True) is None
    assert compare_measures([observed(np.ones(3))], [none], paired=True) is None
    with pytest.raises(RequestError, match="without a training"):
        compare_measures([], 0.5, paired=False)
    with pytest.raises(RequestError, match="without a training"):
        compare_measures([none], [], paired=False)


def test_the_interval_of_a_mean_covers_examples_and_trainings() -> None:
    same = interval_over_trainings([0.2, 0.2, 0.2], [0.01, 0.01, 0.01])
    apart = interval_over_trainings([0.1, 0.2, 0.3], [0.01, 0.01, 0.01])
    assert same is not None
    assert apart is not None
    assert (same.low, same.high) == pytest.approx((0.19, 0.21))
    # Student's t with two degrees of freedom, hardly any of the examples' variance.
    reach = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert apart.high - 0.2 == pytest.approx(min(0.8, reach), rel=0.02)
    assert interval_over_trainings([0.1, 0.2], [0.01, None]) is None
