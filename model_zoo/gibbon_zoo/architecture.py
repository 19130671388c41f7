"""The interface between an architecture and the training loop.

An architecture is a torch module that flattens its inputs, (N, 1, 28, 28) or any (N, ...), to
rows.  It holds no randomness: dropout masks are drawn outside and given to `forward`, so that one
set of masks can serve a clean batch and its adversarial twin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gibbon.core.threat import PIXEL_BOUNDS, Bounds
from gibbon.models.outputs import OutputRule

# Factors for the units of each layer that dropout acts on, shape (N, width); None leaves a layer
# alone, and an empty sequence leaves all of them alone.
Masks = Sequence[Tensor | None]

# Terms that are added to the units of each layer, shape (N, width), before dropout; None and an
# empty sequence as for masks.
Shifts = Sequence[Tensor | None]


class Architecture(nn.Module, ABC):
    """A module that the training loop can start, constrain and run with dropout."""

    outputs: OutputRule
    input_shape: ClassVar[tuple[int, ...]] = (1, 28, 28)
    bounds: ClassVar[Bounds] = PIXEL_BOUNDS

    @property
    @abstractmethod
    def layer_widths(self) -> tuple[int, ...]:
        """Number of units that feed each layer: the inputs first, then each hidden layer."""

    def unit_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the matrices whose rows are the incoming weights of one linear unit.

        An architecture without such matrices returns none, as this does.
        """
        return ()

    def drawn_weights(self) -> tuple[nn.Parameter, ...]:
        """Returns the weights that `start` draws, in that order: those of `unit_weights`."""
        return self.unit_weights()

    def linear_weights(self) -> Tensor | None:
        """Returns the weights, shape (K, D), if outputs are linear in the inputs, else None."""
        return None

    @torch.no_grad()
    def start(
        self, inputs: Tensor, labels: Tensor, *, spread: float, generator: torch.Generator
    ) -> None:
        """Initialises the parameters for training: draws `drawn_weights`, and zeroes the others.

        Args:
            inputs: the training inputs, shape (N, ...), for architectures that start from them.
            labels: int64, shape (N,).
            spread: weights are drawn uniformly from ``[-spread, spread]``; zero if 0.
            generator: generator of the random numbers.
        """
        for parameter in self.parameters():
            parameter.zero_()
        for weight in self.drawn_weights():
            fill_uniform(weight, spread, generator)

    @abstractmethod
    def forward(self, inputs: Tensor, masks: Masks = (), shifts: Shifts = ()) -> Tensor:
        """Returns the outputs, shape (N, K), as `outputs` describes them."""


def draw_masks(
    widths: Sequence[int],
    count: int,
    *,
    input_rate: float,
    hidden_rate: float,
    generator: torch.Generator,
    input_scale: float | None = None,
    hidden_scale: float | None = None,
) -> list[Tensor | None]:
    """Returns dropout masks: 0 with the layer's rate, else the layer's scale.

    By default the scale is 1 / (1 - rate), so that the mean is 1.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    2014, section 10 (the inverted form); https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        widths: units that feed each layer, the inputs first.
        count: number of examples, N.
        input_rate: share of inputs that is dropped, in [0, 1).
        hidden_rate: share of the units of each hidden layer that is dropped.
        generator: a generator on the CPU.
        input_scale: factor of the inputs that are kept; 1 / (1 - rate) if None.
        hidden_scale: factor of the hidden units that are kept, likewise.

    >>> draw_masks([2, 3], 4, input_rate=0.0, hidden_rate=0.0, generator=torch.Generator())
    [None, None]
    """
    hidden = len(widths) - 1
    rates = [input_rate] + [hidden_rate] * hidden
    scales = [input_scale] + [hidden_scale] * hidden
    return [
        _draw_mask((count, width), rate, scale, generator)
        for width, rate, scale in zip(widths, rates, scales, strict=True)
    ]


def _draw_mask(
    shape: tuple[int, int], rate: float, scale: float | None, generator: torch.Generator
) -> Tensor | None:
    if rate == 0:
        return None if scale is None or scale == 1 else torch.full(shape, scale)
    kept = torch.rand(shape, generator=generator).ge_(rate)
    if scale is None:
        return kept.div_(1 - rate)
    return kept if scale == 1 else kept.mul_(scale)


def fed(units: Tensor, masks: Masks, shifts: Shifts, *, layer: int) -> Tensor:
    """Returns a layer's input: the units below, (N, width), with shift and dropout applied."""
    shift = shifts[layer] if shifts else None
    mask = masks[layer] if masks else None
    shifted = units if shift is None else units + shift
    return shifted if mask is None else shifted * mask


@torch.no_grad()
def constrain_norms(weights: Sequence[Tensor], limit: float) -> None:
    """Shrinks each row that is longer than ``limit`` in L2 to that length, in place.

    The max-norm constraint of Srebro and Shraibman, "Rank, trace-norm and max-norm", COLT 2005,
    as Goodfellow et al., "Maxout networks", ICML 2013, section 5.1, put it on each unit's
    incoming weights; https://arxiv.org/abs/1302.4389

    >>> weights = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> constrain_norms([weights], 1.0)
    >>> weights
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    for matrix in weights:
        norms = torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
        matrix.mul_((limit / norms).clamp_(max=1.0))


@torch.no_grad()
def fill_uniform(weights: Tensor, spread: float, generator: torch.Generator) -> None:
    """Fills a tensor with numbers uniform on ``[-spread, spread]``."""
    weights.copy_(torch.rand(weights.shape, generator=generator).mul_(2).sub_(1).mul_(spread))
