r"""Shallow softmax regression.

.. math:: z = W x + b, \qquad p(y = k \mid x) = \operatorname{softmax}(z)_k

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015, section 4 ("a shallow softmax classifier"); https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gibbon.models.outputs import LOGITS
from gibbon_zoo.architecture import Architecture, Masks, Shifts, fed


class Softmax(Architecture):
    """Softmax regression on flattened inputs.

    Args:
        inputs: number of input coordinates.
        classes: number of classes, K.

    >>> Softmax()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    outputs = LOGITS

    def __init__(self, *, inputs: int = 784, classes: int = 10) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, inputs))
        self.bias = nn.Parameter(torch.zeros(classes))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs."""
        return (self.weight.shape[1],)

    def unit_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the one matrix, a row a class."""
        return (self.weight,)

    def linear_weights(self) -> Tensor:
        """Returns the one matrix."""
        return self.weight

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns logits, shape (N, K), of inputs of shape (N, ...)."""
        return nn.functional.linear(
            fed(inputs.flatten(1), masks, shifts, layer=0), self.weight, self.bias
        )
