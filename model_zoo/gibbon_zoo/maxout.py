r"""A network of two hidden maxout layers.

A maxout unit takes the largest of several linear pieces of its input:

.. math:: h_i(x) = \max_j \; w_{ij}^\top x + b_{ij}, \qquad z = W h^{(2)}(h^{(1)}(x)) + b

It is trained with dropout on the inputs and on both hidden layers, and with a bound on the norm of
each piece's incoming weights.

Source: Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout networks", ICML 2013,
sections 3 and 5.1; https://arxiv.org/abs/1302.4389.  With 240 units of 5 pieces a layer it is the
network of Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015, sections 4 and 6; https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gibbon.models.outputs import LOGITS
from gibbon_zoo.architecture import Architecture, Masks, Shifts, fed


class _Largest(torch.autograd.Function):
    """The maximum over dimension 1, with a gradient in half of the time of ``amax``'s.

    The gradient is the one of ``amax``: pieces that tie for the maximum share it equally.
    """

    @staticmethod
    def forward(ctx: Any, pieces: Tensor) -> Tensor:
        largest = pieces.amax(1)
        ctx.save_for_backward(pieces, largest)
        return largest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,), (pieces, largest) = gradients, ctx.saved_tensors
        # Comparing into floats is vectorised; booleans would be converted one by one.
        chosen: Tensor = pieces.detach().clone().eq_(largest.detach().unsqueeze(1))
        shares = gradient / chosen.sum(1)
        if torch.is_grad_enabled():  # the gradient will be differentiated
            return chosen * shares.unsqueeze(1)
        return chosen.mul_(shares.unsqueeze(1))


def largest_piece(pieces: Tensor, *, trained: bool) -> Tensor:
    """Returns the maximum over dimension 1.

    Args:
        pieces: shape (N, pieces, ...).
        trained: whether the parameters below it are trained: a frozen network uses operations
            of torch alone, which exports and compilers know.
    """
    if not (trained and torch.is_grad_enabled()):
        return pieces.amax(1)
    largest: Tensor = _Largest.apply(pieces)
    return largest


class MaxoutLayer(nn.Module):
    """A layer of maxout units.

    The rows of ``weight`` lie piece by piece: row ``j * units + i`` is piece j of unit i, which
    makes the maximum a reduction over whole rows of units and so the faster layout.

    Args:
        inputs: number of units below.
        units: number of maxout units.
        pieces: number of linear pieces that each unit takes the maximum of.

    >>> MaxoutLayer(4, units=3, pieces=2)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, inputs: int, *, units: int, pieces: int) -> None:
        super().__init__()
        self.units = units
        self.pieces = pieces
        self.weight = nn.Parameter(torch.zeros(pieces * units, inputs))
        self.bias = nn.Parameter(torch.zeros(pieces * units))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the units' outputs, shape (N, units), of inputs of shape (N, inputs)."""
        pieces = nn.functional.linear(inputs, self.weight, self.bias)
        pieces = pieces.view(-1, self.pieces, self.units)
        return largest_piece(pieces, trained=self.weight.requires_grad)


class Maxout(Architecture):
    """Two hidden maxout layers and a linear one, on flattened inputs.

    Args:
        inputs: number of input coordinates.
        classes: number of classes, K.
        units: maxout units in each hidden layer.
        pieces: linear pieces a unit.

    >>> Maxout(units=6, pieces=2)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    outputs = LOGITS

    def __init__(
        self, *, inputs: int = 784, classes: int = 10, units: int = 240, pieces: int = 5
    ) -> None:
        super().__init__()
        self.hidden1 = MaxoutLayer(inputs, units=units, pieces=pieces)
        self.hidden2 = MaxoutLayer(units, units=units, pieces=pieces)
        self.weight = nn.Parameter(torch.zeros(classes, units))
        self.bias = nn.Parameter(torch.zeros(classes))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs, then both hidden layers."""
        return (self.hidden1.weight.shape[1], self.hidden1.units, self.hidden2.units)

    def unit_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the three matrices, a row a linear piece or a class."""
        return (self.hidden1.weight, self.hidden2.weight, self.weight)

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns logits, shape (N, K), of inputs of shape (N, ...)."""
        hidden = self.hidden1(fed(inputs.flatten(1), masks, shifts, layer=0))
        hidden = self.hidden2(fed(hidden, masks, shifts, layer=1))
        return nn.functional.linear(fed(hidden, masks, shifts, layer=2), self.weight, self.bias)
