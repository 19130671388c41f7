"""Adam on a batch of independent problems that may leave the batch.

Source: D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm
1, https://arxiv.org/abs/1412.6980.
"""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8  # algorithm 1's recommended settings


class Adam:
    """The state of Adam, separate for each example."""

    def __init__(self, points: Tensor, *, step_size: float) -> None:
        self.step_size = step_size
        self.steps = 0
        self.first = torch.zeros_like(points)
        self.second = torch.zeros_like(points)

    def step(self, points: Tensor, gradient: Tensor) -> Tensor:
        """Returns the points after one step down the gradient."""
        self.steps += 1
        self.first.lerp_(gradient, 1 - FIRST_DECAY)
        self.second.lerp_(gradient.square(), 1 - SECOND_DECAY)
        first = self.first / (1 - FIRST_DECAY**self.steps)
        second = self.second / (1 - SECOND_DECAY**self.steps)
        return points - self.step_size * first / (second.sqrt_().add_(EPSILON))

    def take(self, rows: Tensor) -> Adam:
        """Returns the state of some of the examples."""
        taken = Adam(self.first[rows], step_size=self.step_size)
        taken.steps = self.steps
        taken.first, taken.second = self.first[rows], self.second[rows]
        return taken
