r"""The square attack: random search over square windows, without gradients.

Algorithm 1: sample a window and a change in it, and keep the change where it lowers the margin of
the true class.  In L∞ (algorithm 2) every channel of the window is set to
:math:`x \pm \epsilon`; in L2 (algorithm 3) the budget of two windows, and what was not spent, is
moved into one of them along

.. math::
    \eta_{r,s} \propto \sum_{k = d(r,s)}^{n} \frac{1}{(k+1)^2}

(equation 2), d being the distance from the centre, one half of the window up, the other down.

Source: M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square attack: a query-efficient
black-box adversarial attack via random search", ECCV 2020, https://arxiv.org/abs/1912.00049.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass as plain
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmark.attacks.base import STRICT, Attack
from benchmark.attacks.minimal import Aim
from benchmark.attacks.projections import TINY, like
from benchmark.attacks.targets import Target
from benchmark.classifier import Classifier
from benchmark.rng import ExampleStreams
from benchmark.threat import Bounds, Norm, ThreatModel

# Section 4: the share of pixels in a window is halved after so many of 10,000 queries.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000
TILES = 5  # a side: the grid of the first L2 perturbation
SMALLEST_L2 = 3  # pixels a side, for a window that has two halves


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Square(Attack):
    """Tries changes in random windows and keeps those that help.

    It takes no gradients.  One forward pass is one query; the clean query comes on top of
    ``queries``.  Examples that are misled leave the batch, with the point that misled them; the
    others return the point with the best loss.  A vector is treated as a picture of one row.

    Args:
        queries: at most so many for each example and restart.
        share: p, the share of pixels in the first windows.
        restarts: runs with other random numbers, for those that were not misled before; each yields
            one candidate.
        target: which class is aimed at, ``"none"`` for any wrong one.  The loss is the margin, and
            the cross-entropy of the target, as in the paper.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    needs_gradient: ClassVar[bool] = False

    queries: Annotated[int, Field(ge=1)] = 5000
    share: Annotated[float, Field(gt=0, le=1)] = 0.8
    restarts: Annotated[int, Field(ge=1)] = 1
    target: Target = "none"

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields one candidate a restart."""
        if threat.radius == 0:
            yield inputs.clone()
            return
        aim = Aim.choose(self.target, classifier, inputs, labels=labels, streams=streams)
        with torch.no_grad():
            misled = aim.reached(classifier(inputs))
        candidates = inputs.clone()
        for restart in range(self.restarts):
            rows = (~misled).nonzero().flatten()
            if len(rows):
                found, reached = self._search(
                    classifier,
                    inputs[rows],
                    aim=aim.take(rows),
                    threat=threat,
                    streams=streams.child(restart).take(rows),
                )
                candidates[rows], misled[rows] = found, reached
            yield candidates.clone()

    @torch.no_grad()
    def _search(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        aim: Aim,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> tuple[Tensor, Tensor]:
        """Returns the best points, shape (M, *input_shape), and which of them reached the aim."""
        sampler = SAMPLERS[threat.norm](threat.radius, threat.bounds)
        shape = inputs.shape[1:]
        start = inputs.flatten(1).view(len(inputs), *_picture(shape))
        best = sampler.first(start, streams=streams.child("first"))
        values, reached = self._ask(classifier, best, shape, aim=aim)
        final, succeeded = best.clone(), reached.clone()
        live = torch.arange(len(inputs), device=inputs.device)
        for query in range(1, self.queries):
            if bool(reached.any()):
                keep = (~reached).nonzero().flatten()
                final[live[reached]] = best[reached]
                succeeded[live[reached]] = True
                live, start, best, values = live[keep], start[keep], best[keep], values[keep]
                streams, aim = streams.take(keep), aim.take(keep)
            if not len(live):
                break
            side = math.sqrt(self._share(query) * start[0, 0].numel())
            tried = sampler.change(best, start, side=side, streams=streams.child(query))
            found, reached = self._ask(classifier, tried, shape, aim=aim)
            better = (found > values) | reached
            best = torch.where(like(better, best), tried, best)
            values = torch.where(better, found, values)
        if len(live):
            final[live], succeeded[live] = best, reached
        return final.view_as(inputs), succeeded

    def _ask(
        self, classifier: Classifier, points: Tensor, shape: torch.Size, *, aim: Aim
    ) -> tuple[Tensor, Tensor]:
        outputs = classifier(points.view(len(points), *shape))
        if aim.targeted:
            return -classifier.outputs.exact_loss(outputs, aim.classes), aim.reached(outputs)
        return aim.margin(outputs), aim.reached(outputs)

    def _share(self, query: int) -> float:
        place = query / self.queries * SCHEDULE
        halvings = sum(place > halving for halving in HALVINGS)
        return math.ldexp(self.share, -halvings)


@plain(frozen=True)
class Sampler(ABC):
    """How points are changed; pictures have shape (M, C, H, W)."""

    radius: float
    bounds: Bounds | None

    @abstractmethod
    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns the points to start from."""

    @abstractmethod
    def change(
        self, best: Tensor, inputs: Tensor, *, side: float, streams: ExampleStreams
    ) -> Tensor:
        """Returns the best points changed in a window of about ``side`` pixels a side."""

    def boxed(self, points: Tensor) -> Tensor:
        """Returns the points in the box; they are overwritten."""
        if self.bounds is None:
            return points
        return points.clamp_(self.bounds.low, self.bounds.high)


class LinfSampler(Sampler):
    """Algorithm 2."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns vertical stripes of one pixel, a sign for each channel and column."""
        _, channels, _, width = inputs.shape
        signs = streams.signs((channels, 1, width))
        return self.boxed(inputs.add(signs, alpha=self.radius))

    def change(
        self, best: Tensor, inputs: Tensor, *, side: float, streams: ExampleStreams
    ) -> Tensor:
        """Returns points with one window at plus or minus epsilon, a sign for each channel."""
        height, width = _window(side, best)
        draws = streams.uniform((2 + best.shape[1],))
        places = _places(draws[:, :2], best, height=height, width=width)
        signs = torch.where(draws[:, 2:, None] < 0.5, -1.0, 1.0)
        flat = inputs.flatten(2)
        index = places.unsqueeze(1).expand(-1, best.shape[1], -1)
        values = flat.gather(2, index).add(signs, alpha=self.radius)
        return self.boxed(best.flatten(2).scatter(2, index, values).view_as(best))


class L2Sampler(Sampler):
    """Algorithm 3."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns a grid of windows, a sign for each channel and window."""
        _, channels, height, width = inputs.shape
        tiles = _tiles(height, width).to(inputs)
        signs = streams.signs((channels, len(tiles)))
        change = torch.einsum("mct,thw->mchw", signs, tiles)
        return self._scaled(inputs, change)

    def change(
        self, best: Tensor, inputs: Tensor, *, side: float, streams: ExampleStreams
    ) -> Tensor:
        """Returns points with the budget of two windows in one of them."""
        channels = best.shape[1]
        side = max(round(side), SMALLEST_L2)
        height, width = _window(side + (side % 2 == 0), best)
        draws = streams.uniform((5 + channels,))
        one = _places(draws[:, :2], best, height=height, width=width)
        two = _places(draws[:, 2:4], best, height=height, width=width)
        signs = torch.where(draws[:, 5:, None] < 0.5, -1.0, 1.0)
        pyramid = _halves(height, width).to(best)
        shapes = pyramid.flatten().expand(len(best), -1)
        if height == width:
            turned = draws[:, 4:5] < 0.5
            shapes = torch.where(turned, pyramid.T.flatten(), shapes)
        one, two = (each.unsqueeze(1).expand(-1, channels, -1) for each in (one, two))
        change = (best - inputs).flatten(2)
        unspent = (self.radius**2 - change.square().sum((1, 2))).clamp_(min=0) / channels
        before = change.gather(2, one)
        cleared = change.scatter(2, two, 0.0).scatter(2, one, 0.0)
        freed = change.square().sum(2) - cleared.square().sum(2)
        direction = signs * shapes.unsqueeze(1) + before / _size(before)
        available = (freed.clamp(min=0) + unspent.unsqueeze(1)).sqrt().unsqueeze(2)
        change = cleared.scatter(2, one, direction / _size(direction) * available)
        return self._scaled(inputs, change.view_as(best))

    def _scaled(self, inputs: Tensor, change: Tensor) -> Tensor:
        size = like(torch.linalg.vector_norm(change.flatten(1), dim=1), change)
        return self.boxed(inputs + change * (self.radius / size.clamp(min=TINY)))


SAMPLERS: dict[Norm, type[Sampler]] = {Norm.LINF: LinfSampler, Norm.L2: L2Sampler}


def _picture(shape: torch.Size) -> tuple[int, int, int]:
    """Returns an input's shape as channels, height and width."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _window(side: float, pictures: Tensor) -> tuple[int, int]:
    """Returns the height and width of a window, at least one pixel, within the picture."""
    pixels = max(round(side), 1)
    return min(pixels, pictures.shape[-2]), min(pixels, pictures.shape[-1])


def _places(draws: Tensor, pictures: Tensor, *, height: int, width: int) -> Tensor:
    """Returns the positions of a window's pixels in flat pictures, int64, (M, height * width)."""
    rows, columns = pictures.shape[-2:]
    free = torch.tensor([rows - height + 1, columns - width + 1], device=pictures.device)
    top, left = (draws.double() * free).long().unbind(1)
    down = torch.arange(height, device=pictures.device) * columns
    across = torch.arange(width, device=pictures.device)
    corner = top * columns + left
    return corner.unsqueeze(1) + (down.unsqueeze(1) + across).flatten()


def _halves(height: int, width: int) -> Tensor:
    """Returns a window of Euclidean length 1: one half of it up, the other down."""
    if height < width:
        return _halves(width, height).T
    upper = height // 2
    window = torch.cat([_pyramid(upper, width), -_pyramid(height - upper, width)])
    return window / window.square().sum().sqrt()


def _pyramid(height: int, width: int) -> Tensor:
    """Returns equation 2 for a rectangle, of Euclidean length 1."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    depth = torch.maximum(down.unsqueeze(1), across)
    weights = 1.0 / torch.arange(1, max(height, width) // 2 + 2).square()
    inward = weights.flip(0).cumsum(0).flip(0)
    values = inward[depth]
    return values / values.square().sum().sqrt().clamp(min=TINY)


def _tiles(height: int, width: int) -> Tensor:
    """Returns the windows of a grid in the middle of a picture, shape (T, height, width)."""
    tall, wide = max(height // TILES, 1), max(width // TILES, 1)
    across, down = min(TILES, width), min(TILES, height)
    top, left = (height - down * tall) // 2, (width - across * wide) // 2
    window = _halves(tall, wide)
    tiles = torch.zeros(down * across, height, width)
    for number, tile in enumerate(tiles):
        row = top + number // across * tall
        column = left + number % across * wide
        tile[row : row + tall, column : column + wide] = window
    return tiles


def _size(windows: Tensor) -> Tensor:
    sizes: Tensor = torch.linalg.vector_norm(windows, dim=-1, keepdim=True)
    return sizes.clamp(min=TINY)
