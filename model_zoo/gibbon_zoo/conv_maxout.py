r"""A convolutional maxout network for small colour images.

A convolutional maxout map is the maximum, pixel by pixel, of several maps that are linear in the
layer below, and is then pooled:

.. math:: h_i = \operatorname{pool} \max_j \; (W_{ij} * x + b_{ij})

The network has two such layers, a layer of maxout units, and a linear one.

Source: Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout networks", ICML 2013,
sections 3 and 5.2; https://arxiv.org/abs/1302.4389.  Theirs for CIFAR-10, which Goodfellow, Shlens
and Szegedy (2015) attack in section 4, has three convolutional layers of 96, 192 and 192 maps, of 8
x 8, 8 x 8 and 5 x 5 pixels, under 500 units of 5 pieces; this one is smaller, for want of a GPU.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gibbon.core.threat import Bounds
from gibbon.datasets.registered.cifar10_whitened import BOUNDS
from gibbon.models.outputs import LOGITS
from gibbon_zoo.architecture import Architecture, Masks, Shifts, fed
from gibbon_zoo.maxout import MaxoutLayer, largest_piece

KERNEL = 5
STRIDE = 2  # of the first layer
CONV_PIECES = 2  # as in the original
POOL = 2


class ConvMaxoutLayer(nn.Module):
    """A layer of convolutional maxout maps, pooled by the largest.

    Args:
        inputs: number of maps below.
        maps: number of maps.
        stride: of the convolution.

    >>> ConvMaxoutLayer(3, maps=4, stride=2)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 4, 8, 8])
    """

    def __init__(self, inputs: int, *, maps: int, stride: int = 1) -> None:
        super().__init__()
        self.maps = maps
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(CONV_PIECES * maps, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(CONV_PIECES * maps))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns maps, shape (N, maps, H', W'), of maps of shape (N, inputs, H, W)."""
        pieces = functional.conv2d(
            inputs, self.weight, self.bias, stride=self.stride, padding=KERNEL // 2
        )
        pieces = pieces.view(-1, CONV_PIECES, self.maps, *pieces.shape[2:])
        largest = largest_piece(pieces, trained=self.weight.requires_grad)
        return functional.max_pool2d(largest, POOL)


class ConvMaxout(Architecture):
    """Two convolutional maxout layers, one of maxout units, and a linear one.

    Args:
        classes: number of classes, K.
        maps: maps of the first layer; the second has twice as many.
        units: maxout units.
        pieces: linear pieces a unit.

    >>> ConvMaxout(maps=2, units=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    outputs = LOGITS
    input_shape: ClassVar[tuple[int, ...]] = (3, 32, 32)
    bounds: ClassVar[Bounds] = BOUNDS

    def __init__(
        self, *, classes: int = 10, maps: int = 32, units: int = 100, pieces: int = 5
    ) -> None:
        super().__init__()
        channels, height, width = self.input_shape
        shrink = STRIDE * POOL * POOL
        features = 2 * maps * (height // shrink) * (width // shrink)
        self.conv1 = ConvMaxoutLayer(channels, maps=maps, stride=STRIDE)
        self.conv2 = ConvMaxoutLayer(maps, maps=2 * maps)
        self.hidden = MaxoutLayer(features, units=units, pieces=pieces)
        self.weight = nn.Parameter(torch.zeros(classes, units))
        self.bias = nn.Parameter(torch.zeros(classes))

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The inputs, the outputs of the convolutions, and the hidden units."""
        channels, height, width = self.input_shape
        return (channels * height * width, self.hidden.weight.shape[1], self.hidden.units)

    def unit_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the matrices of the hidden units and of the classes, not the kernels."""
        return (self.hidden.weight, self.weight)

    def drawn_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the kernels, and the matrices of the hidden units and of the classes."""
        return (self.conv1.weight, self.conv2.weight, *self.unit_weights())

    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns logits, shape (N, K), of inputs of shape (N, ...)."""
        rows = fed(inputs.flatten(1), masks, shifts, layer=0)
        maps = self.conv2(self.conv1(rows.view(-1, *self.input_shape)))
        hidden = self.hidden(fed(maps.flatten(1), masks, shifts, layer=1))
        return functional.linear(fed(hidden, masks, shifts, layer=2), self.weight, self.bias)
