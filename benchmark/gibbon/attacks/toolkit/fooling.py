r"""Fooling images: one gradient step from an input of no class towards each class.

.. math:: \tilde x_k = x + \epsilon \nabla_x p(k \mid x)

The paper's text adds this step to a draw of :math:`N(0, I)`; its figure 5 takes the sign of the
gradient, and counts an image that is taken for the class with at least 50 % confidence.  It does
not say which :math:`\epsilon` it takes.  The step is not clipped: the draw itself is outside of the
bounds.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
appendix A; https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gibbon.metrics.distances import like
from gibbon.models.classifier import Classifier
from gibbon.specs.suite import Direction


def fooling_images(
    classifier: Classifier, inputs: Tensor, *, step: float, direction: Direction
) -> Iterator[Tensor]:
    """Yields the inputs after one step towards class 0, class 1, and so on.

    Takes one forward pass, and one backward pass for each class.

    Args:
        classifier: the model.
        inputs: shape (N, *input_shape).
        step: size of the step.
        direction: ``gradient`` for the gradient of the class's probability itself, ``unit`` for it
            divided by its L2 norm, ``sign`` for its sign.  The latter two are taken of the
            logarithm of the probability, which has the same direction and does not underflow if
            the outputs are logits or logarithms; probabilities that the model itself rounded to 0
            have no direction left, and the input stays where it is.
    """
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        outputs = classifier(leaf)
    for label in range(classifier.classes):
        log_p, upstream = _log_probability(classifier, outputs.detach(), label)
        last = label == classifier.classes - 1
        gradient = classifier.pull_back(outputs, leaf, upstream, again=not last)
        yield inputs + step * step_direction(gradient, log_p.exp(), direction=direction)


def step_direction(gradient: Tensor, probability: Tensor, *, direction: Direction) -> Tensor:
    """Returns the direction of a step.

    Args:
        gradient: that of the logarithm of the class's probability, shape (N, *input_shape).
        probability: shape (N,).
        direction: see `fooling_images`.

    >>> step_direction(torch.tensor([[3.0, -4.0]]), torch.tensor([0.5]), direction="unit")
    tensor([[ 0.6000, -0.8000]])
    >>> step_direction(torch.tensor([[3.0, -4.0]]), torch.tensor([0.5]), direction="gradient")
    tensor([[ 1.5000, -2.0000]])
    """
    if direction == "sign":
        return gradient.sign()
    if direction == "unit":
        norms = gradient.flatten(1).norm(dim=1)
        tiny = torch.finfo(norms.dtype).tiny  # a gradient of zero has no direction
        return gradient / like(norms.clamp(min=tiny), gradient)
    return gradient * like(probability, gradient)


def _log_probability(classifier: Classifier, outputs: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Returns the logarithm of a class's probability, shape (N,), and its gradient, (N, K)."""
    leaf = outputs.requires_grad_()
    with torch.enable_grad():
        labels = torch.full((len(leaf),), label, dtype=torch.int64, device=leaf.device)
        log_p = classifier.outputs.log_probability(leaf, labels)
    (gradient,) = torch.autograd.grad(log_p.sum(), leaf)
    return log_p.detach(), gradient
