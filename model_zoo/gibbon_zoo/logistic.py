r"""Logistic regression between two classes.

.. math:: z = w^\top x + b, \qquad p(y = 1 \mid x) = \sigma(z)

The module returns the two logits :math:`(0, z)`, whose softmax is :math:`(1 - \sigma(z),
\sigma(z))` and whose cross-entropy is :math:`\zeta(-z)` for class 1 and :math:`\zeta(z)` for class
0, with the softplus :math:`\zeta(t) = \log(1 + e^t)`: the paper's loss :math:`\zeta(-t z)` for
:math:`t = \pm 1`.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015, section 5 (threes against sevens); https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gibbon.models.outputs import LOGITS
from gibbon_zoo.architecture import Architecture, Masks, Shifts, fed


class Logistic(Architecture):
    """Logistic regression on flattened inputs.

    Args:
        inputs: number of input coordinates.

    >>> Logistic()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 2])
    """

    outputs = LOGITS

    def __init__(self, *, inputs: int = 784) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs."""
        return (self.weight.shape[0],)

    def drawn_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the one unit's weights, a vector, which is not constrained."""
        return (self.weight,)

    def linear_weights(self) -> Tensor:
        """Returns zeros for the first class and the weights for the second."""
        return torch.stack((torch.zeros_like(self.weight), self.weight))

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns logits (0, z), shape (N, 2), of inputs of shape (N, ...)."""
        scores = fed(inputs.flatten(1), masks, shifts, layer=0) @ self.weight + self.bias
        return torch.stack((torch.zeros_like(scores), scores), dim=1)
