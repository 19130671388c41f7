r"""Objectives that gradient attacks maximise: one value an example, with gradients in the outputs.

Each gradient is in closed form, up to a positive factor that may differ from example to example:
attacks use its direction only, and in this form the direction stays exact when a factor would
round to zero.

Sources: the difference of logits ratio and its targeted form are from F. Croce and M. Hein,
"Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020, sections 4 and 5, https://arxiv.org/abs/2003.01690; the margin is f6 of N. Carlini and D.
Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, section V,
https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.models.outputs import OutputRule, margin, margin_ascent

# An attack counts an example as misclassified only if the margin exceeds the rounding of another
# batch size, relative to the largest output: the trust boundary predicts again, in its own batch.
RESOLUTION = 1e-5
SMALLEST_SPREAD = 1e-12  # below which the difference of logits ratio is not divided

Loss = Literal["cross-entropy", "margin"]


@dataclass(frozen=True)
class Objective(ExampleRows, ABC):
    """A function of the model's outputs that an attack maximises, for N examples.

    Args:
        labels: int64, shape (N,): the true classes.
    """

    labels: Tensor

    @abstractmethod
    def value(self, outputs: Tensor) -> Tensor:
        """Returns the objective of outputs of shape (N, K), shape (N,)."""

    @abstractmethod
    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns, shape (N, K), a positive multiple of the objective's gradient in the outputs."""

    def misclassified(self, outputs: Tensor) -> Tensor:
        """Returns which examples are misclassified by more than rounding, bool, shape (N,)."""
        return margin(outputs, self.labels) > RESOLUTION * outputs.abs().amax(1)


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """The loss that the model was trained with, in its exact form.

    Args:
        rule: the meaning of the model's outputs.
    """

    rule: OutputRule

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the loss of the true class."""
        return self.rule.exact_loss(outputs, self.labels)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the exact direction (`OutputRule.ascent`)."""
        return self.rule.ascent(outputs, self.labels)


@dataclass(frozen=True)
class TargetedCrossEntropy(Objective):
    """Minus the loss of a target class.

    Args:
        rule: the meaning of the model's outputs.
        targets: int64, shape (N,): the target classes.
    """

    rule: OutputRule
    targets: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Returns minus the loss of the target."""
        return self.rule.exact_loss(outputs, self.targets).neg()

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns minus the exact direction of the target's loss."""
        return self.rule.ascent(outputs, self.targets).neg()


@dataclass(frozen=True)
class Margin(Objective):
    """The best wrong class's output minus the true one's."""

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the margin."""
        return margin(outputs, self.labels)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the margin's gradient."""
        return margin_ascent(outputs, self.labels)


@dataclass(frozen=True)
class DLR(Objective):
    r"""The difference of logits ratio.

    .. math::
        \mathrm{DLR}(x, y) = -\frac{z_y - \max_{i \ne y} z_i}{z_{\pi_1} - z_{\pi_3}}

    with :math:`\pi` the order of decreasing outputs.  It does not change if a number is added to
    all outputs or if they are scaled, so that it never saturates.  With fewer than three classes
    there is no third output, and it is the margin, undivided.
    """

    #: The divisor as weights of the outputs in decreasing order; a model must have as many classes.
    divisor: ClassVar[tuple[float, ...]] = (1.0, 0.0, -1.0)

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the ratio, -1 to 0 for correctly classified examples."""
        return margin(outputs, self.labels) / _spread(outputs, of=self.divisor)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient times the divisor."""
        ascent = margin_ascent(outputs, self.labels)
        return _quotient(ascent, self.value(outputs), outputs, of=self.divisor)


@dataclass(frozen=True)
class TargetedDLR(Objective):
    r"""The targeted difference of logits ratio.

    .. math::
        -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}

    With fewer than four classes there is no fourth output, and it is :math:`z_t - z_y`, undivided.

    Args:
        targets: int64, shape (N,): the target classes.
    """

    #: As of `DLR`.
    divisor: ClassVar[tuple[float, ...]] = (1.0, 0.0, -0.5, -0.5)

    targets: Tensor

    def value(self, outputs: Tensor) -> Tensor:
        """Returns the ratio, positive if the target is above the true class."""
        target = outputs.gather(1, self.targets.unsqueeze(1)).squeeze(1)
        own = outputs.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        return (target - own) / _spread(outputs, of=self.divisor)

    def ascent(self, outputs: Tensor) -> Tensor:
        """Returns the gradient times the divisor."""
        ascent = torch.zeros_like(outputs).scatter_(1, self.targets.unsqueeze(1), 1.0)
        ascent.scatter_(1, self.labels.unsqueeze(1), -1.0)
        return _quotient(ascent, self.value(outputs), outputs, of=self.divisor)


def untargeted(loss: Loss, labels: Tensor, rule: OutputRule) -> Objective:
    """Returns the objective of an untargeted attack by its name."""
    return Margin(labels) if loss == "margin" else CrossEntropy(labels, rule)


def _spread(outputs: Tensor, *, of: tuple[float, ...]) -> Tensor:
    if outputs.shape[1] < len(of):
        return torch.ones_like(outputs[:, 0])
    weights = outputs.new_tensor(of)
    return (outputs.topk(len(of)).values * weights).sum(1).clamp(min=SMALLEST_SPREAD)


def _quotient(
    numerator: Tensor, value: Tensor, outputs: Tensor, *, of: tuple[float, ...]
) -> Tensor:
    """Returns the gradient of a quotient times its divisor: u' - (u / v) v'."""
    if outputs.shape[1] < len(of):
        return numerator
    weights = outputs.new_tensor(of).expand(len(outputs), -1)
    divisor = torch.zeros_like(outputs).scatter_(1, outputs.topk(len(of)).indices, weights)
    return numerator - value.unsqueeze(1) * divisor
