"""Targets are never the true class, are chosen as said, at no more passes than that takes."""

import nets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gibbon.attacks.toolkit.objectives import CrossEntropy, TargetedCrossEntropy
from gibbon.attacks.toolkit.targets import choose_objective, choose_targets
from gibbon.core.rng import ExampleStreams
from gibbon.models.pass_count import PassCount

RULES = ("random", "least-likely", "second")


def streams_of(count: int, seed: int = 0) -> ExampleStreams:
    return ExampleStreams.derive(seed, torch.arange(count))


@given(
    rows=st.lists(
        st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=1, max_size=6
    ),
    true=st.integers(0, 2),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
)
def test_a_target_is_another_class(rows, true, rule, seed):
    outputs = torch.tensor(rows)
    labels = torch.full((len(rows),), true)
    before = outputs.clone()
    targets = choose_targets(rule, outputs, labels, streams_of(len(rows), seed))
    assert torch.equal(outputs, before)
    assert targets.dtype == torch.int64
    for row, target in zip(rows, targets.tolist(), strict=True):
        others = [value for number, value in enumerate(row) if number != true]
        assert 0 <= target < 3
        assert target != true
        if rule != "random":
            assert row[target] == (min(others) if rule == "least-likely" else max(others))


@pytest.mark.parametrize("rule", RULES)
def test_of_two_classes_the_other_one_is_the_target(rule):
    labels = torch.arange(40) % 2
    targets = choose_targets(rule, torch.zeros(40, 2), labels, streams_of(40))
    assert torch.equal(targets, 1 - labels)


def test_random_targets_are_even_and_belong_to_examples():
    labels = torch.full((9000,), 3)
    streams = streams_of(9000)
    targets = choose_targets("random", torch.zeros(9000, 10), labels, streams)
    counts = torch.bincount(targets, minlength=10)
    assert int(counts[3]) == 0
    assert float((counts[counts > 0] - 1000).abs().max()) < 5 * 1000**0.5
    order = torch.randperm(9000, generator=nets.generator(0))
    again = choose_targets("random", torch.zeros(9000, 10), labels, streams.take(order))
    assert torch.equal(again, targets[order])


@pytest.mark.parametrize(
    ("target", "forward"), [("none", 0), ("random", 0), ("least-likely", 1), ("second", 1)]
)
def test_only_a_choice_by_the_outputs_costs_a_pass(mlp, batch, target, forward):
    count = len(batch.labels)
    goal = choose_objective(target, mlp, batch.inputs, batch.labels, streams_of(count))
    assert mlp.passes == PassCount(forward=forward * count)
    assert isinstance(goal, CrossEntropy if target == "none" else TargetedCrossEntropy)
