"""AUROC and the false-positive rate at 95 % of true positives, against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from scipy.stats import t as student

from gibbon.metrics.detection import auroc, false_positives_at_tpr, threshold_at_tpr

# Few values, so that there are ties.
SAMPLES = st.lists(st.integers(0, 8).map(lambda each: each / 8), min_size=1, max_size=30)


def pairs(clean: list[float], no_class: list[float]) -> NDArray[np.float64]:
    """For each pair 1 if the input with a class has the larger confidence, 1/2 for a tie."""
    one, other = np.array(clean)[:, None], np.array(no_class)[None]
    return (one > other) + (one == other) / 2


@given(SAMPLES, SAMPLES)
def test_auroc_is_the_share_of_pairs_in_the_right_order(
    clean: list[float], no_class: list[float]
) -> None:
    found = auroc(np.array(clean), np.array(no_class))
    assert found.value == pytest.approx(pairs(clean, no_class).mean())
    statistic = mannwhitneyu(clean, no_class, method="asymptotic").statistic
    assert found.value == pytest.approx(statistic / len(clean) / len(no_class))
    assert auroc(-np.array(clean), -np.array(no_class)).value == pytest.approx(1 - found.value)


@given(SAMPLES, SAMPLES)
def test_its_interval_is_of_the_variance_of_the_placements(
    clean: list[float], no_class: list[float]
) -> None:
    found = auroc(np.array(clean), np.array(no_class))
    order = pairs(clean, no_class)
    if min(order.shape) < 2:  # the variance of one placement is unknown
        assert found.interval is None
        return
    parts = [np.var(order.mean(axis), ddof=1) / order.shape[1 - axis] for axis in (0, 1)]
    variance = sum(parts)
    if found.interval is None:
        assert found.value in (0.0, 1.0) or variance == pytest.approx(0)
        return
    assert 0 <= found.interval.low < found.value < found.interval.high <= 1
    ends = np.array([found.interval.low, found.interval.high])
    value = found.value or 0.0
    freedom = variance**2 / sum(
        part**2 / (order.shape[1 - axis] - 1) for axis, part in enumerate(parts)
    )
    half = student.ppf(0.975, freedom) * np.sqrt(variance) / (value * (1 - value))
    centre = np.log(value / (1 - value))
    assert ends == pytest.approx(1 / (1 + np.exp([half - centre, -half - centre])), rel=1e-4)


def test_the_interval_covers_the_true_area() -> None:
    """Of normal samples a standard deviation apart the area is Phi(1 / sqrt 2) = 0.7602."""
    random = np.random.default_rng(0)
    hit = 0
    for _ in range(400):
        interval = auroc(random.normal(1, 1, 60), random.normal(0, 1, 90)).interval
        assert interval is not None
        hit += interval.low <= 0.76025 <= interval.high
    assert 0.92 <= hit / 400 <= 0.975


def test_the_interval_of_few_inputs_covers_the_true_area_too() -> None:
    random = np.random.default_rng(1)
    found = [auroc(random.normal(1, 1, 300), random.normal(0, 1, 4)) for _ in range(400)]
    known = [each.interval for each in found if each.interval is not None]
    assert len(known) > 380
    hit = sum(each.low <= 0.76025 <= each.high for each in known)
    assert hit / len(known) >= 0.92


@given(SAMPLES, SAMPLES)
def test_the_threshold_is_the_largest_that_enough_inputs_with_a_class_reach(
    clean: list[float], no_class: list[float]
) -> None:
    known, others = np.array(clean), np.array(no_class)
    threshold = threshold_at_tpr(known)
    assert threshold == max(each for each in clean if np.mean(known >= each) >= 0.95)
    found = false_positives_at_tpr(known, others)
    assert (found.count, found.total) == (np.count_nonzero(others >= threshold), len(others))


def test_without_inputs_there_is_nothing_to_compare() -> None:
    nothing, some = np.array([]), np.array([0.5])
    assert auroc(nothing, some).value is None
    assert auroc(some, nothing).value is None
    assert false_positives_at_tpr(nothing, some).value is None
    assert auroc(np.array([0.9, 0.8]), np.array([0.1])).interval is None  # they do not overlap
