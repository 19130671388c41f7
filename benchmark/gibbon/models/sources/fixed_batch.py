"""Runs networks with a fixed batch size on batches of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gibbon.core.errors import ModelError


@dataclass(frozen=True)
class AcceptedInputs:
    """Inputs that a network accepts, as declared in its file.

    Args:
        shape: of one input; None for an axis of any length, or as a whole if it is not declared.
        least, most: limits of the batch size; ``most`` is None if there is no upper limit.
    """

    shape: tuple[int | None, ...] | None = None
    least: int = 1
    most: int | None = None

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `ModelError`, with a remedy, if inputs have another shape."""
        if self.shape is None:
            return
        fits = len(shape) == len(self.shape) and all(
            wanted is None or wanted == came for wanted, came in zip(self.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if each is None else str(each) for each in self.shape)
            raise ModelError(
                f"it takes inputs of shape ({wanted}), the dataset's are {shape}{self._cure(shape)}"
            )

    def _cure(self, shape: tuple[int, ...]) -> str:
        wanted = self.shape or ()
        if len(wanted) != 3 or len(shape) != 3:
            return ""
        if wanted[2] in (1, 3) and wanted[0] not in (1, 3, None):
            return ": it takes channels last (NHWC); export it with channels first (NCHW)"
        cures = []
        if wanted[0] != shape[0] and wanted[0] in (1, 3):
            cures.append(f"--colour {'rgb' if wanted[0] == 3 else 'grey'}")
        sides = [str(each) for each in wanted[1:] if each is not None]
        if len(sides) == 2 and tuple(wanted[1:]) != shape[1:]:
            side = sides[0] if sides[0] == sides[1] else "x".join(sides)
            cures.append(f"--resize {side} --crop {side}")
        return f": {' '.join(cures)}" if cures else ""


class AnyBatch(nn.Module):
    """A network that takes batches of any size, split into parts and padded as it requires.

    The padding repeats the last example of the part, so it is finite if the inputs are.
    """

    def __init__(self, network: nn.Module, accepted: AcceptedInputs) -> None:
        super().__init__()
        self.network = network
        self.accepted = accepted

    def forward(self, inputs: Tensor) -> Any:
        """Returns the network's outputs, shape (N, K), for inputs of shape (N, ...)."""
        self.accepted.check(tuple(inputs.shape[1:]))
        size = self.accepted.most or max(len(inputs), 1)
        parts = [self._part(part) for part in torch.split(inputs, size)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _part(self, inputs: Tensor) -> Any:
        lacking = self.accepted.least - len(inputs)
        if lacking <= 0:
            return self.network(inputs)
        filling = inputs[-1:].detach().expand(lacking, *inputs.shape[1:])
        outputs = self.network(torch.cat([inputs, filling]))
        first = isinstance(outputs, Tensor) and outputs.ndim > 0
        return outputs[: len(inputs)] if first else outputs
