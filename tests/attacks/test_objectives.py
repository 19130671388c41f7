"""Objectives are what their formulas say, and their ascents point where they rise fastest."""

import nets
import pytest
import torch
from torch import Tensor

from gibbon.attacks.toolkit.objectives import (
    DLR,
    CrossEntropy,
    Margin,
    Objective,
    TargetedCrossEntropy,
    TargetedDLR,
)
from gibbon.models.outputs import LOG_SCORES, LOGITS, PROBABILITIES, margin

LABELS = torch.arange(20) % 5
TARGETS = (LABELS + 1 + torch.arange(20) % 3) % 5
RULES = (LOGITS, PROBABILITIES, LOG_SCORES)


def outputs_of(rule=LOGITS, *, classes: int = 5) -> Tensor:
    draws = torch.randn(20, classes, generator=nets.generator(1), dtype=torch.float64)
    return {LOGITS: draws, PROBABILITIES: draws.softmax(1), LOG_SCORES: draws.sigmoid().log()}[rule]


OBJECTIVES = [
    pytest.param(objective, outputs_of(rule), id=f"{name}-{rule.name}")
    for rule in RULES
    for name, objective in {
        "cross-entropy": CrossEntropy(LABELS, rule),
        "targeted": TargetedCrossEntropy(LABELS, rule, TARGETS),
        "margin": Margin(LABELS),
        "dlr": DLR(LABELS),
        "dlr-targeted": TargetedDLR(LABELS, TARGETS),
    }.items()
]


@pytest.mark.parametrize(("goal", "outputs"), OBJECTIVES)
def test_an_ascent_is_a_positive_multiple_of_the_gradient(goal: Objective, outputs: Tensor):
    leaf = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(goal.value(leaf).sum(), leaf)
    ascent = goal.ascent(outputs)
    cosines = torch.nn.functional.cosine_similarity(gradient, ascent, dim=1)
    moving = gradient.abs().amax(1) > 1e-12
    torch.testing.assert_close(cosines[moving], torch.ones_like(cosines[moving]))
    assert float(ascent[~moving].abs().sum()) < 1e-12
    assert int(moving.sum()) > 10


@pytest.mark.parametrize(("goal", "outputs"), OBJECTIVES)
def test_some_examples_objective_is_that_of_the_whole(goal: Objective, outputs: Tensor):
    index = torch.tensor([7, 3, 4])
    part = goal.take(index)
    assert torch.equal(part.value(outputs[index]), goal.value(outputs)[index])
    assert torch.equal(part.ascent(outputs[index]), goal.ascent(outputs)[index])


def test_the_ratio_by_hand():
    outputs = torch.tensor([[1.0, 5.0, 3.0, 2.0], [4.0, 1.0, 2.0, 0.0]])
    goal = DLR(torch.tensor([1, 1]))
    # -(5 - 3) / (5 - 2) and -(1 - 4) / (4 - 1)
    torch.testing.assert_close(goal.value(outputs), torch.tensor([-2 / 3, 1.0]))
    targeted = TargetedDLR(torch.tensor([1, 1]), torch.tensor([3, 2]))
    # -(5 - 2) / (5 - (2 + 1) / 2) and -(1 - 2) / (4 - (1 + 0) / 2)
    torch.testing.assert_close(targeted.value(outputs), torch.tensor([-3 / 3.5, 1 / 3.5]))


@pytest.mark.parametrize("goal", [DLR(LABELS), TargetedDLR(LABELS, TARGETS)], ids=["dlr", "t"])
def test_the_ratio_does_not_change_with_scale_or_shift(goal: Objective):
    outputs = outputs_of()
    other = 1000 * outputs + 7
    torch.testing.assert_close(goal.value(other), goal.value(outputs))
    torch.testing.assert_close(goal.ascent(other), goal.ascent(outputs))


@pytest.mark.parametrize("classes", [2, 3])
def test_with_too_few_classes_the_ratios_are_margins(classes):
    outputs, labels = outputs_of(classes=classes), torch.arange(20) % 2
    targets = 1 - labels
    goal = TargetedDLR(labels, targets)
    difference = outputs.gather(1, targets[:, None]) - outputs.gather(1, labels[:, None])
    torch.testing.assert_close(goal.value(outputs), difference.squeeze(1))
    assert torch.equal(goal.ascent(outputs).abs().sum(1), torch.full((20,), 2.0).double())
    if classes == 2:
        torch.testing.assert_close(DLR(labels).value(outputs), margin(outputs, labels))
        assert torch.equal(DLR(labels).ascent(outputs), Margin(labels).ascent(outputs))


def test_where_all_outputs_are_equal_nothing_is_divided_by_zero():
    outputs = torch.zeros(2, 5)
    for goal in (DLR(LABELS[:2]), TargetedDLR(LABELS[:2], TARGETS[:2])):
        assert bool(torch.isfinite(goal.value(outputs)).all())
        assert bool(torch.isfinite(goal.ascent(outputs)).all())


def test_where_the_softmax_saturates_objectives_still_rise():
    outputs = torch.tensor([[500.0, 0.0, -3.0, 1.0, 2.0]], dtype=torch.float64)
    for goal in (
        CrossEntropy(torch.tensor([0]), LOGITS),
        TargetedCrossEntropy(torch.tensor([0]), LOGITS, torch.tensor([2])),
        DLR(torch.tensor([0])),
        TargetedDLR(torch.tensor([0]), torch.tensor([2])),
    ):
        ascent = goal.ascent(outputs)
        assert float(ascent.abs().amax()) > 0.1
        nearer = goal.value(outputs + ascent)
        assert float(nearer) > float(goal.value(outputs))


def test_misled_means_by_more_than_rounding():
    outputs = torch.tensor([[100.0, 100.0], [100.0, 100.0005], [100.0, 100.1], [100.0, 99.0]])
    found = Margin(torch.zeros(4, dtype=torch.int64)).misclassified(outputs)
    assert found.tolist() == [False, False, True, False]
