"""Rates and means against loops that anybody can read."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.metrics.intervals import wilson_interval
from gibbon.metrics.rates import Share, attack_success, mean, same_class, share

examples = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)),
    max_size=30,
)


def columns(rows):
    flags, among, first, second, values = zip(*rows, strict=True) if rows else ([],) * 5
    return (
        np.array(flags, dtype=bool),
        np.array(among, dtype=bool),
        np.array(first, dtype=np.int64),
        np.array(second, dtype=np.int64),
        np.array(values, dtype=np.float32),
    )


@given(examples)
def test_a_share_is_how_many_of_how_many(rows):
    flags, among, *_ = columns(rows)
    assert share(flags) == Share(sum(1 for row in rows if row[0]), len(rows))
    assert share(flags, among=among) == Share(
        sum(1 for row in rows if row[1] and row[0]), sum(1 for row in rows if row[1])
    )


@given(examples)
def test_attack_success_is_counted_among_those_classified_correctly_when_clean(rows):
    misled, wrong_when_clean, *_ = columns(rows)
    correct = [row for row in rows if not row[1]]
    assert attack_success(misled, clean_misclassified=wrong_when_clean) == Share(
        sum(1 for row in correct if row[0]), len(correct)
    )


@given(examples)
def test_same_class_is_counted_among_those_marked(rows):
    _, among, first, second, _ = columns(rows)
    chosen = [row for row in rows if row[1]]
    assert same_class(first, second, among=among) == Share(
        sum(1 for row in chosen if row[2] == row[3]), len(chosen)
    )


@given(examples)
def test_a_mean_is_taken_in_float64(rows):
    _, among, _, _, values = columns(rows)
    chosen = [float(np.float32(row[4])) for row in rows if row[1]]
    found = mean(values, among=among)
    if not chosen:
        assert found is None
    else:
        assert found == pytest.approx(math.fsum(chosen) / len(chosen), rel=1e-14)


def test_a_mean_of_many_float32_loses_nothing():
    values = np.full(2**24 + 10, 0.1, dtype=np.float32)
    assert mean(values) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_nothing_has_no_rate_and_no_mean():
    empty = np.zeros(0, dtype=bool)
    assert share(empty) == Share(0, 0)
    assert Share(0, 0).value is None
    assert Share(0, 0).interval is None
    assert mean(np.zeros(0, dtype=np.float32)) is None


def test_a_share_has_its_value_and_wilson_interval():
    assert Share(3, 4).value == 0.75
    assert Share(3, 4).interval == wilson_interval(3, 4)
