"""A thermometer encoding in front of a maxout network of the zoo.

J. Buckman, A. Roy, C. Raffel and I. Goodfellow, "Thermometer encoding: one hot way to resist
adversarial examples", ICLR 2018.  A pixel becomes one number a level: 1 for the levels that it
reaches, else 0.  Rounding up has no gradient.
"""

from collections import OrderedDict

import torch
from torch import nn

from gibbon_zoo.zoo import build as zoo

LEVELS = 16
STARTS = torch.arange(LEVELS).view(1, -1, 1, 1) / LEVELS  # lowest value of each level


class Encode(nn.Module):
    """Maps pixels, shape (N, 1, H, W), to levels, shape (N, LEVELS, H, W)."""

    def forward(self, pixels):
        return ((pixels - STARTS.to(pixels.device)) * LEVELS).ceil().clamp(0, 1)


class Decode(nn.Module):
    """The network's first layer: the same weight for all levels of a pixel."""

    def forward(self, levels):
        return levels.mean(1, keepdim=True)


def build():
    layers = {"encode": Encode(), "decode": Decode(), "network": zoo("maxout").module}
    return nn.Sequential(OrderedDict(layers))


def soft(pixels):
    """A smooth encoding: its slope is nowhere zero, also at pixels that are 0 or 1."""
    return torch.sigmoid((pixels - STARTS.to(pixels.device)) * LEVELS)
