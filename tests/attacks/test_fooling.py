"""Steps towards a class, against the closed form on a linear model."""

from __future__ import annotations

from typing import get_args

import nets
import pytest
import torch
from torch import Tensor

from gibbon.attacks.toolkit.fooling import fooling_images
from gibbon.models.classifier import Classifier
from gibbon.models.outputs import LOG_SCORES, LOGITS, LOSS_SCORES, PROBABILITIES, OutputRule
from gibbon.specs.suite import Direction

STEP = 0.3


def points(source: Classifier, count: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, *source.input_shape, generator=random)


def probability(rule: OutputRule, outputs: Tensor, label: int) -> Tensor:
    labels = torch.full((len(outputs),), label)
    return rule.true_class_probability(outputs, labels)


@pytest.mark.parametrize("rule", [LOGITS, PROBABILITIES, LOG_SCORES], ids=lambda rule: rule.name)
@pytest.mark.parametrize("direction", get_args(Direction))
def test_each_image_is_one_step_along_the_gradient_of_its_class(
    rule: OutputRule, direction: Direction
) -> None:
    source = nets.with_rule(rule)
    inputs = points(source)
    kept = inputs.clone()
    images = list(fooling_images(source, inputs, step=STEP, direction=direction))
    assert len(images) == source.classes
    assert torch.equal(inputs, kept)
    for label, image in enumerate(images):
        leaf = inputs.double().requires_grad_()
        module = source.module.double()
        (gradient,) = torch.autograd.grad(probability(rule, module(leaf), label).sum(), leaf)
        module.float()
        norms = gradient.flatten(1).norm(dim=1).view(-1, *(1,) * (gradient.ndim - 1))
        expected = {
            "gradient": gradient,
            "unit": gradient / norms,
            "sign": gradient.sign(),
        }[direction]
        moved = (image - inputs).double() / STEP
        if direction == "sign":  # a gradient next to zero may round to either sign
            assert (moved.round() == expected).double().mean() > 0.99
        else:
            torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)


def test_a_class_that_the_softmax_rounds_to_zero_has_a_direction() -> None:
    """The logits are 200 x and -200 x: the second probability is e^-400 at x = 1."""
    net = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[200.0], [-200.0]]))
    source = Classifier(net, classes=2, input_shape=(1,), outputs=LOGITS)
    inputs = torch.ones(1, 1)
    for direction in ("sign", "unit"):
        _, image = fooling_images(source, inputs, step=3.0, direction=direction)  # type: ignore[arg-type]
        assert image.item() == pytest.approx(-2.0)
        assert source.predict(image).argmax(1).item() == 1
    # The gradient of the probability itself is 0 in float32, so that the step stays where it is.
    _, image = fooling_images(source, inputs, step=3.0, direction="gradient")
    assert torch.equal(image, inputs)


def test_it_takes_one_forward_pass_and_a_backward_pass_a_class() -> None:
    source = nets.mlp()
    with source.evaluating():
        list(fooling_images(source, points(source, 5), step=STEP, direction="sign"))
    assert (source.passes.forward, source.passes.backward) == (5, 5 * source.classes)


def test_the_logarithm_of_a_probability_is_that_of_every_rule() -> None:
    outputs = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.1, 4.0]])
    given = {
        LOGITS: outputs,
        PROBABILITIES: outputs.softmax(1),
        LOG_SCORES: torch.nn.functional.logsigmoid(outputs),
        LOSS_SCORES: outputs,
    }
    for rule, values in given.items():
        for label in range(3):
            labels = torch.full((2,), label)
            expected = rule.true_class_probability(values, labels).double().log()
            found = rule.log_probability(values, labels).double()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
