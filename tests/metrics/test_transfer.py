"""Transfer shares against loops over the examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibbon.metrics.rates import Share
from gibbon.metrics.transfer import Scored, agreement_share, transfer_shares

LABEL = 0
answers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30)


def scored(predicted: list[int], valid: list[bool]) -> Scored:
    classes = np.array(predicted, dtype=np.int64)
    misled = (classes != LABEL) & np.array(valid, dtype=bool)
    return Scored(classes, misled, np.ones(len(predicted), dtype=np.float32))


def count(rows, *, of, which) -> Share:
    chosen = [row for row in rows if of(*row)]
    return Share(sum(1 for row in chosen if which(*row)), len(chosen))


@given(answers)
def test_shares_are_those_of_a_slow_reference(rows):
    valid = [row[2] for row in rows]
    source, target = scored([row[0] for row in rows], valid), scored([r[1] for r in rows], valid)
    shares = transfer_shares(source, target)

    def source_misled(s: int, t: int, valid: bool) -> bool:
        return valid and s != LABEL

    def target_misled(s: int, t: int, valid: bool) -> bool:
        return valid and t != LABEL

    def both(s: int, t: int, valid: bool) -> bool:
        return valid and s != LABEL and t != LABEL

    def same_wrong(s: int, t: int, valid: bool) -> bool:
        return valid and s == t != LABEL

    def anything(s: int, t: int, valid: bool) -> bool:
        return True

    assert shares.error == count(rows, of=anything, which=target_misled)
    assert shares.error_given_source == count(rows, of=source_misled, which=target_misled)
    assert shares.same_class_given_source == count(rows, of=source_misled, which=same_wrong)
    assert shares.same_class_given_both == count(rows, of=both, which=same_wrong)
    assert agreement_share(source, target) == shares.same_class_given_both


@given(answers)
def test_a_model_agrees_with_itself(rows):
    source = scored([row[0] for row in rows], [row[2] for row in rows])
    shares = transfer_shares(source, source)
    for each in (shares.error_given_source, shares.same_class_given_source):
        assert each.count == each.total == int(source.misled.sum())


@given(answers)
def test_agreement_does_not_ask_who_comes_first(rows):
    valid = [row[2] for row in rows]
    one, other = scored([row[0] for row in rows], valid), scored([row[1] for row in rows], valid)
    assert agreement_share(one, other) == agreement_share(other, one)


def test_the_three_denominators_are_kept_apart():
    source = scored([1, 1, 1, 0, 2], [True] * 5)
    target = scored([1, 2, 0, 3, 2], [True] * 5)
    shares = transfer_shares(source, target)
    assert shares.error == Share(4, 5)
    assert shares.error_given_source == Share(3, 4)
    assert shares.same_class_given_source == Share(2, 4)
    assert shares.same_class_given_both == Share(2, 3)
    assert shares.same_class_given_source.value == pytest.approx(0.5)
