"""Programs of torch.export as plain modules: their mode can be set, and their batch is any."""

from __future__ import annotations

import copy
from typing import Any, Self

from torch import Tensor, nn


def is_program(module: nn.Module) -> bool:
    """Says whether a module was made of an exported program: it refuses another mode."""
    return "train" in vars(module) and "eval" in vars(module)


class Program(nn.Module):
    """The module of an exported program, which keeps the mode that it was exported in.

    ``train`` and ``eval`` raise on it; here they change nothing but what the module says.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.train(False)
        for part in program.modules():
            part.training = False

    @classmethod
    def around(cls, program: nn.Module, *, own: bool) -> Self:
        """Returns it around a program; around a copy of one that is somebody else's."""
        return cls(program if own else copy.deepcopy(program))

    def train(self, mode: bool = True) -> Self:
        """Says that it is in a mode."""
        self.training = mode
        return self

    def forward(self, inputs: Tensor) -> Any:
        """Returns what the program returns."""
        return self.program(inputs)
