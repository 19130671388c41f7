r"""Momentum iterative FGSM on diverse inputs, for transfer.

.. math::
    d_t &= \nabla_x J(T(x_t; p), y) \\
    g_{t+1} &= \mu \, g_t + d_t / \lVert d_t \rVert_1 \\
    x_{t+1} &= \mathrm{Clip}_{x, \epsilon}(x_t + \alpha \, \mathrm{sign}(g_{t+1}))

with T a transformation that, with probability p, resizes a picture to a random smaller size by
nearest neighbours and pads it with zeros to a random position.

Departure: the paper enlarges pictures of 299 pixels to 330, with room for sizes from 299 to 329.
Models here take inputs of one size, so the picture is shrunk and padded back to it.  The size, the
position and whether a picture is transformed are drawn for each example, in the paper for a batch.

Source: C. Xie, Z. Zhang, Y. Zhou, S. Bai, J. Wang, Z. Ren and A. L. Yuille, "Improving
transferability of adversarial examples with input diversity", CVPR 2019, section 3.3,
https://arxiv.org/abs/1803.06978.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass as plain
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.mi_fgsm import accumulate
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.image_input import check_pictures
from gibbon.attacks.toolkit.objectives import CrossEntropy
from gibbon.attacks.toolkit.projections import region
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DIMIFGSM(Attack):
    """Takes momentum steps along the gradients at randomly shrunk and padded pictures.

    Inputs must be pictures of shape (channels, height, width); others raise `AttackError`.

    Args:
        steps: number of steps.
        decay: of the momentum, μ.
        step_size: length of a step in the units of the input; ε / steps if None.
        probability: of transforming a picture, at each step.
        smallest: the smallest size as a share of the picture's, 299/330 in the paper; sizes go up
            to one pixel less than the picture's.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    search_method: ClassVar[SearchMethod] = SearchMethod.FOR_TRANSFER
    departures: ClassVar[Mapping[str, str]] = {
        "optimum": "it climbs randomly resized pictures, for transfer, not the model's own loss"
    }

    steps: Count = 10
    decay: Annotated[float, Field(ge=0)] = 1.0
    step_size: PositiveLength | None = None
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    smallest: Annotated[float, Field(gt=0, lt=1)] = 299 / 330

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate."""
        check_pictures(inputs, attack="di-mi-fgsm")
        step = self.step_size or threat.radius / self.steps
        allowed, goal = region(inputs, threat=threat), CrossEntropy(labels, classifier.outputs)
        gradients = Gradients(classifier)
        points, momentum = inputs, torch.zeros_like(inputs)
        for shrinking in self._drawn(inputs, streams):
            with torch.enable_grad():
                leaf = points.detach().requires_grad_()
                diverse = shrinking.of(leaf)
            _, at_diverse = gradients.at(diverse, goal.ascent)
            (gradient,) = torch.autograd.grad(diverse, leaf, at_diverse)
            momentum = accumulate(momentum, gradient, decay=self.decay)
            points = allowed.project(points.add(allowed.unit(momentum), alpha=step))
        gradients.check()
        yield points

    def _drawn(self, pictures: Tensor, streams: ExampleStreams) -> Iterator[_Shrinking]:
        """Yields T of each step, whose random numbers are drawn together, in few operations."""
        count, channels, height, width = pictures.shape
        number = torch.arange(count, device=pictures.device).view(-1, 1, 1, 1)
        channel = torch.arange(channels, device=pictures.device).view(1, -1, 1, 1)
        coin, size, top, left = streams.children(range(self.steps)).uniform((4,)).unbind(1)
        rows = _resampled(height, self.smallest, size, place=top)
        columns = _resampled(width, self.smallest, size, place=left)
        drawn = (coin < self.probability, *rows, *columns)
        for changed, row, inside_rows, column, inside_columns in zip(
            *(torch.split(each, count) for each in drawn), strict=True
        ):
            yield _Shrinking(
                changed=changed.view(-1, 1, 1, 1),
                pixels=(number, channel, row[:, None, :, None], column[:, None, None, :]),
                inside=inside_rows[:, None, :, None] & inside_columns[:, None, None, :],
            )


@plain(frozen=True)
class _Shrinking:
    """A transformation T, of N pictures of C channels.

    Args:
        changed: bool, shape (N, 1, 1, 1): which pictures are shrunk.
        pixels: the source of each pixel, four positions that broadcast to (N, C, height, width).
        inside: bool, shape (N, 1, height, width): which pixels have a source.
    """

    changed: Tensor
    pixels: tuple[Tensor, Tensor, Tensor, Tensor]
    inside: Tensor

    def of(self, pictures: Tensor) -> Tensor:
        """Returns the transformed pictures, of the same shape."""
        return torch.where(self.changed, pictures[self.pixels] * self.inside, pictures)


def _resampled(
    length: int, smallest: float, size: Tensor, *, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the source pixel of each position on an axis, and whether it has one, (N, length).

    The picture is shrunk to a size from ``smallest * length`` to ``length - 1`` and put at any
    position at which it fits.  Nearest neighbours never repeat a pixel when shrinking.
    """
    least = min(int(smallest * length + 0.5), length - 1)
    shrunk = (least + (size * (length - least)).floor()).clamp(min=1, max=length)
    offset = (place * (length - shrunk + 1)).floor()
    where = torch.arange(length, device=size.device) - offset.unsqueeze(1)
    inside = (where >= 0) & (where < shrunk.unsqueeze(1))
    source = (where * length / shrunk.unsqueeze(1)).floor().clamp(0, length - 1)
    return source.long(), inside
