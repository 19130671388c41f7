r"""A shallow radial basis function network: one unit a class, no hidden layer.

.. math:: p(y = k \mid x) = \exp\bigl(-(x - \mu_k)^\top \beta_k\, (x - \mu_k)\bigr)

Each unit stands for itself: its output is the probability of its class, unnormalised, and it is
trained with its own Bernoulli cross-entropy.  Here :math:`\beta_k` is diagonal and positive,
:math:`\beta_k = \operatorname{diag}(\exp B_k)`.  Training starts with :math:`\mu_k` at the mean of
its class and one :math:`\beta` for all units and coordinates, such that the exponent is 1 on
average over the examples of each unit's own class.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015, section 7; https://arxiv.org/abs/1412.6572.  The paper leaves open the form of :math:`\beta`,
the start and the loss: the diagonal, the common start and the Bernoulli loss are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gibbon.models.outputs import LOG_SCORES
from gibbon_zoo.architecture import Architecture, Masks, Shifts, fed, fill_uniform


class Rbf(Architecture):
    """A network of one radial basis function for each class, on flattened inputs.

    Args:
        inputs: number of input coordinates.
        classes: number of classes, K.

    >>> Rbf()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    outputs = LOG_SCORES

    def __init__(self, *, inputs: int = 784, classes: int = 10) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(classes, inputs))
        self.log_precisions = nn.Parameter(torch.zeros(classes, inputs))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs."""
        return (self.centres.shape[1],)

    @torch.no_grad()
    def start(
        self, inputs: Tensor, labels: Tensor, *, spread: float, generator: torch.Generator
    ) -> None:
        """Puts centres at the class means (plus ``spread``) and one precision everywhere.

        Every class must have an example.
        """
        rows = inputs.flatten(1)
        noise = torch.empty_like(self.centres)
        fill_uniform(noise, spread, generator)
        for label in range(len(self.centres)):
            self.centres[label] = rows[labels == label].mean(0)
        distances = (rows - self.centres[labels]).square_().sum(1)
        self.log_precisions.fill_(-float(distances.mean().log()))
        self.centres.add_(noise)

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        r"""Returns the logarithms of the units' outputs, shape (N, K): the exponents, at most 0.

        The square is multiplied out, :math:`x^\top\beta x - 2 x^\top\beta\mu + \mu^\top\beta\mu`,
        so that two matrix products do it.
        """
        rows = fed(inputs.flatten(1), masks, shifts, layer=0)
        precisions = self.log_precisions.exp()
        pulls = precisions * self.centres
        squares = rows.square() @ precisions.T - 2 * rows @ pulls.T
        return -(squares + (pulls * self.centres).sum(1))
