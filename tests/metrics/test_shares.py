"""Means of shares: their interval covers examples and draws."""

from __future__ import annotations

import numpy as np
import pytest

from gibbon.core.errors import RequestError
from gibbon.metrics.intervals import clustered_interval, wilson_interval
from gibbon.metrics.rates import mean_share


@pytest.mark.parametrize(("wrong", "total"), [(0, 30), (30, 30), (1, 30), (17, 30)])
def test_of_yes_or_no_it_is_wilsons(wrong: int, total: int) -> None:
    shares = np.array([1.0] * wrong + [0.0] * (total - wrong))
    found = clustered_interval(shares, draws=1)
    expected = wilson_interval(wrong, total)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_draws_of_examples_that_do_not_differ_count_as_examples() -> None:
    shares = np.full(50, 0.3)
    found = clustered_interval(shares, draws=20)
    expected = wilson_interval(300, 1000)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_of_equal_answers_there_are_as_many_as_examples() -> None:
    assert clustered_interval(np.zeros(40), draws=20) == wilson_interval(0, 40)
    assert clustered_interval(np.ones(40), draws=20) == wilson_interval(40, 40)


@pytest.mark.parametrize(("examples", "draws"), [(40, 1), (40, 20), (200, 5)])
@pytest.mark.parametrize("spread", [0.2, 2.0, 50.0])
def test_it_covers_the_expectation(examples: int, draws: int, spread: float) -> None:
    """Examples have chances of their own, from a beta distribution of mean 0.3."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chance = random.beta(0.3 * spread, 0.7 * spread, examples)
        shares = random.binomial(draws, chance) / draws
        found = clustered_interval(shares, draws=draws)
        covered += found.low <= 0.3 <= found.high
    assert covered / 400 > 0.92


def test_a_mean_is_over_the_examples_that_are_chosen() -> None:
    shares = np.array([0.2, 0.4, 1.0])
    among = np.array([True, True, False])
    assert mean_share(shares, draws=5, among=among).value == pytest.approx(0.3)
    assert mean_share(shares, draws=5, among=np.zeros(3, dtype=bool)).value is None
    rounded = mean_share(np.array([0.6, 0.7], dtype=np.float32).astype(float), draws=10)
    assert rounded.value == pytest.approx(0.65, abs=1e-15)  # stored in float32


def test_no_shares_have_no_interval() -> None:
    with pytest.raises(RequestError, match="no interval of no shares"):
        clustered_interval(np.array([]), draws=3)
