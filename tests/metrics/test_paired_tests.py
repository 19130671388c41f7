"""Paired tests: how much a number of examples can show, and how many would be needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.core.errors import RequestError
from gibbon.metrics.paired_tests import examples_needed, fewest_broken, mcnemar


@given(st.integers(0, 60), st.sampled_from([0.001, 0.05, 0.2]), st.integers(1, 50))
def test_fewest_broken_is_where_the_test_turns(fixed, alpha, tests):
    broken = fewest_broken(fixed, alpha=alpha, tests=tests)
    assert tests * mcnemar(fixed, broken) < alpha
    assert broken == fixed + 1 or tests * mcnemar(fixed, broken - 1) >= alpha


@pytest.mark.parametrize(
    "wrong", [{"fixed": -1}, {"fixed": 0, "alpha": 0}, {"fixed": 0, "tests": 0}]
)
def test_there_is_no_test_of_less_than_nothing(wrong):
    with pytest.raises(RequestError, match="no test"):
        fewest_broken(**wrong)


def test_the_examples_needed_are_those_of_the_formula():
    # Connor (1987), equation 3, by hand: psi 0.05, delta 0.01, z 1.959964 and 0.841621.
    by_hand = ((1.959964 * 0.05**0.5 + 0.841621 * (0.05 - 0.0001) ** 0.5) / 0.01) ** 2
    assert examples_needed(30, 20, 1000) == int(np.ceil(by_hand))


@pytest.mark.parametrize(("only_first", "only_second"), [(30, 20), (12, 3), (60, 40)])
def test_as_many_examples_as_needed_show_the_difference_as_often_as_stated(only_first, only_second):
    needed = examples_needed(only_first, only_second, 400)
    random = np.random.default_rng(1)
    chances = [only_first / 400, only_second / 400, 1 - (only_first + only_second) / 400]
    drawn = random.multinomial(needed, chances, 1000)
    found = np.mean([mcnemar(first, second) < 0.05 for first, second, _ in drawn])
    # The exact test is a little more cautious than the normal approximation of the formula.
    assert 0.7 <= found <= 0.87


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_examples_needed_do_not_depend_on_the_order_of_models(first, second):
    total = 600
    needed = examples_needed(first, second, total)
    assert needed == examples_needed(second, first, total)
    assert (needed is None) == (first == second)
    if needed is not None:
        stricter = examples_needed(first, second, total, alpha=0.01)
        assert stricter is not None
        assert stricter >= needed


@pytest.mark.parametrize("wrong", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_no_examples_are_needed_for_impossible_counts(wrong):
    with pytest.raises(RequestError, match="no test"):
        examples_needed(*wrong)
    with pytest.raises(RequestError, match="with power"):
        examples_needed(1, 0, 5, power=1)
