"""What outputs mean: confidence, losses, and directions that never saturate."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gibbon.models.outputs import (
    LOG_SCORES,
    LOGITS,
    LOSS_SCORES,
    PROBABILITIES,
    OutputRule,
    margin,
    margin_ascent,
)

logits = st.lists(
    st.lists(st.floats(-6, 6, width=32), min_size=4, max_size=4), min_size=1, max_size=6
)
RULES = [LOGITS, PROBABILITIES, LOG_SCORES, LOSS_SCORES]


def outputs_for(rule: OutputRule, rows: list[list[float]]) -> Tensor:
    raw = torch.tensor(rows, dtype=torch.float64)
    if rule is PROBABILITIES:
        return raw.softmax(1)
    return -raw.abs() - 1e-3 if rule is LOG_SCORES else raw


def labels_for(rows: list[list[float]]) -> Tensor:
    return torch.arange(len(rows)) % 4


def autograd(rule: OutputRule, outputs: Tensor, labels: Tensor) -> Tensor:
    leaf = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rule.loss(leaf, labels).sum(), leaf)
    return gradient


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_the_ascent_is_a_positive_multiple_of_the_gradient(rule, rows):
    outputs, labels = outputs_for(rule, rows), labels_for(rows)
    gradient, ascent = autograd(rule, outputs, labels), rule.ascent(outputs, labels)
    factor = gradient.norm(dim=1, keepdim=True) / ascent.norm(dim=1, keepdim=True)
    assert bool((factor > 0).all())
    torch.testing.assert_close(ascent * factor, gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_the_exact_loss_is_the_loss(rule, rows):
    outputs, labels = outputs_for(rule, rows), labels_for(rows)
    torch.testing.assert_close(rule.exact_loss(outputs, labels), rule.loss(outputs, labels))


def decimal_softmax_facts(row: list[float], label: int) -> tuple[list[float], float, float]:
    """The direction q - e_y, the loss -log p_y and 1 - p_y, with 80 digits."""
    with localcontext(prec=80):
        powers = [Decimal(value).exp() for value in row]
        others = sum(powers) - powers[label]
        direction = [float(power / others) for power in powers]
        direction[label] = -1.0
        loss = (1 + others / powers[label]).ln()
        return direction, float(loss), float(others / sum(powers))


@pytest.mark.parametrize("lead", [5, 10, 16, 18, 25, 36, 50, 80, 100])
def test_float32_logits_keep_their_direction_where_the_softmax_saturates(lead):
    row = [0.5, float(lead) + 0.5, -1.25, 0.0]
    outputs, labels = torch.tensor([row]), torch.tensor([1])
    direction, loss, doubt = decimal_softmax_facts(row, 1)
    torch.testing.assert_close(LOGITS.ascent(outputs, labels)[0], torch.tensor(direction))
    naive = autograd(LOGITS, outputs, labels)[0]
    if lead >= 18:  # the softmax rounds to 1: the entry of the true class is lost
        assert LOGITS.true_class_probability(outputs, labels).item() == 1
        assert naive[1] == 0
    else:
        torch.testing.assert_close(naive[1].item(), -doubt, rtol=0.3, atol=0)
    # Down to the smallest normal float32 to full precision, below it as far as there are bits.
    precise = lead <= 85
    assert LOGITS.exact_loss(outputs, labels).item() == pytest.approx(
        loss, rel=1e-5 if precise else 0.05
    )


@pytest.mark.parametrize("lag", [5.0, 50.0, 100.0])
def test_logits_far_on_the_wrong_side(lag):
    outputs, labels = torch.tensor([[0.0, lag, 0.0]]), torch.tensor([0])
    torch.testing.assert_close(
        LOGITS.exact_loss(outputs, labels), LOGITS.loss(outputs, labels), rtol=1e-6, atol=0
    )
    assert LOGITS.ascent(outputs, labels).argmax() == 1


def test_two_classes_have_one_direction():
    outputs = torch.tensor([[60.0, 0.0]])
    assert LOGITS.ascent(outputs, torch.tensor([0])).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("score", [0.0, -1e-9, -1e-3, -1.0, -50.0, -1e4])
def test_log_scores_stay_finite_at_the_centre_of_a_unit_and_far_from_all(score):
    outputs = torch.tensor([[score, -2.0, score]])
    for label in (0, 1):
        labels = torch.tensor([label])
        ascent = LOG_SCORES.ascent(outputs, labels)
        assert bool(torch.isfinite(ascent).all())
        assert bool(torch.isfinite(LOG_SCORES.loss(outputs, labels)).all())
        assert ascent[0, label] == -1
        assert bool(ascent[0, 1 - label] >= 0)


def test_confidence_is_the_models_probability_for_what_it_predicts():
    row = torch.tensor([[1.0, 3.0, 2.0]])
    probabilities = row.softmax(1)
    assert LOGITS.confidence(row).item() == probabilities[0, 1].item()
    assert PROBABILITIES.confidence(probabilities).item() == probabilities[0, 1].item()
    scores = torch.tensor([[0.2, 0.3, 0.01]]).log()
    assert LOG_SCORES.confidence(scores).item() == pytest.approx(0.3)  # unnormalised
    losses = torch.tensor([[4.0, 0.5, 2.0]])
    assert LOSS_SCORES.confidence(-losses.log()).item() == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_the_true_class_has_the_confidence_where_it_is_predicted(rule, rows):
    outputs = outputs_for(rule, rows)
    torch.testing.assert_close(
        rule.true_class_probability(outputs, outputs.argmax(1)), rule.confidence(outputs)
    )


@given(rows=logits)
def test_the_margin_is_that_of_a_slow_reference(rows):
    outputs, labels = torch.tensor(rows, dtype=torch.float64), labels_for(rows)
    expected = [
        max(value for k, value in enumerate(row) if k != y) - row[y]
        for row, y in zip(rows, labels.tolist(), strict=True)
    ]
    assert margin(outputs, labels).tolist() == expected


@given(rows=logits)
def test_the_margin_ascent_is_its_gradient(rows):
    outputs = torch.tensor(rows, dtype=torch.float64)
    outputs += torch.arange(4) * 1e-3  # no ties: there the gradient is not defined
    labels = labels_for(rows)
    leaf = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(leaf, labels).sum(), leaf)
    ascent = margin_ascent(outputs, labels)
    ties = gradient.abs().sum(1) != 2
    assert torch.equal(ascent.double()[~ties], gradient[~ties])


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_the_log_losses_are_those_of_each_class_as_the_true_one(rule, rows):
    outputs = outputs_for(rule, rows)
    losses = torch.stack(
        [rule.loss(outputs, torch.full((len(rows),), label)) for label in range(4)], dim=1
    )
    torch.testing.assert_close(rule.log_losses(outputs), losses.log())


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_the_smallest_log_loss_is_that_of_the_class_which_is_predicted(rule, rows):
    outputs = outputs_for(rule, rows)
    log_losses = rule.log_losses(outputs)
    predicted = outputs.argmax(1, keepdim=True)
    torch.testing.assert_close(log_losses.gather(1, predicted), log_losses.amin(1, keepdim=True))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(rows=logits)
def test_a_log_losss_gradient_is_a_multiple_of_the_ascent(rule, rows):
    leaf, labels = outputs_for(rule, rows).requires_grad_(), labels_for(rows)
    chosen = rule.log_losses(leaf).gather(1, labels.unsqueeze(1))
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    ascent = rule.ascent(leaf.detach(), labels)
    factor = gradient.norm(dim=1, keepdim=True) / ascent.norm(dim=1, keepdim=True)
    torch.testing.assert_close(ascent * factor, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("lead", [10.0, 15.9, 16.1, 60.0, 100.0, 1_000.0, 1e6])
def test_the_log_loss_of_logits_goes_on_where_the_loss_is_zero(lead):
    leaf = torch.tensor([[0.5, lead + 0.5, -1.25, 0.0]], requires_grad=True)
    found = LOGITS.log_losses(leaf)[0, 1]
    others = torch.tensor([0.5, -1.25, 0.0], dtype=torch.float64).logsumexp(0)
    expected = others - lead - 0.5
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(found, leaf)
    torch.testing.assert_close(
        gradient, LOGITS.ascent(leaf.detach(), torch.tensor([1])), rtol=1e-4, atol=1e-6
    )


def test_nothing_is_changed_in_place():
    for rule in RULES:
        outputs = outputs_for(rule, [[0.5, 1.0, -2.0, 0.25]])
        before, labels = outputs.clone(), torch.tensor([2])
        for function in (rule.ascent, rule.loss, rule.exact_loss, rule.true_class_probability):
            function(outputs, labels)
        rule.log_losses(outputs)
        margin(outputs, labels)
        margin_ascent(outputs, labels)
        rule.confidence(outputs)
        assert torch.equal(outputs, before)


@pytest.mark.parametrize(
    ("rule", "rows", "problem"),
    [
        (LOGITS, [[-50.0, 1e9]], None),
        (PROBABILITIES, [[0.25, 0.75], [1.0, 0.0]], None),
        (PROBABILITIES, [[0.25, 0.75], [0.6, 0.6]], "must sum to 1, got a sum of 1.2"),
        (PROBABILITIES, [[1.5, -0.5]], "must not be negative, got -0.5"),
        (PROBABILITIES, [[3.0, -1.0]], "must not be negative, got -1"),
        (LOG_SCORES, [[-0.5, 0.0]], None),
        (LOSS_SCORES, [[-5.0, 900.0]], None),
        (LOG_SCORES, [[-0.5, 0.5]], "must not exceed 0, got 0.5"),
    ],
)
def test_outputs_that_break_their_rule_are_told(rule, rows, problem):
    found = rule.problem(torch.tensor(rows))
    assert (found is None) if problem is None else problem in (found or "")
