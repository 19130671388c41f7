r"""A maxout network with independent sigmoids on top, one a class, in place of the softmax.

.. math:: p(y = k \mid x) = \sigma(z_k), \qquad
    J = -\log \sigma(z_y) - \sum_{k \ne y} \log \sigma(-z_k)

Each class has its own Bernoulli cross-entropy, so that the network may say that none is there.  The
module returns :math:`\log \sigma(z_k)`, the logarithm of a probability that stands for itself.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
appendix A ("changing the top layer to independent sigmoids"); https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from gibbon.models.outputs import LOG_SCORES
from gibbon_zoo.architecture import Architecture, Masks, Shifts
from gibbon_zoo.maxout import Maxout


class MaxoutSigmoid(Architecture):
    """The layers of `Maxout`, with the logarithm of a sigmoid of each of its outputs.

    Args:
        inputs: number of input coordinates.
        classes: number of classes, K.
        units: maxout units in each hidden layer.
        pieces: linear pieces a unit.

    >>> import torch
    >>> MaxoutSigmoid(units=6, pieces=2)(torch.zeros(1, 1, 28, 28)).detach().exp().unique()
    tensor([0.5000])
    """

    outputs = LOG_SCORES

    def __init__(
        self, *, inputs: int = 784, classes: int = 10, units: int = 240, pieces: int = 5
    ) -> None:
        super().__init__()
        self.layers = Maxout(inputs=inputs, classes=classes, units=units, pieces=pieces)

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs, then both hidden layers."""
        return self.layers.layer_widths

    def unit_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the three matrices, a row a linear piece or a class."""
        return self.layers.unit_weights()

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns the logarithms of the sigmoids, shape (N, K), of inputs of shape (N, ...)."""
        scores: Tensor = self.layers(inputs, masks, shifts)
        return functional.logsigmoid(scores)
