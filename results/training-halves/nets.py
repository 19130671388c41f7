"""The two architectures that are trained on halves of MNIST: a deep one and a linear one."""

from __future__ import annotations

from torch import nn


def deep(units: int = 240) -> nn.Module:
    """Returns two hidden layers of rectified linear units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, 10),
    )


def linear() -> nn.Module:
    """Returns a softmax regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
