"""Square windows: random positions and patterns for the square attack, by norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass as plain

import torch
from torch import Tensor

from gibbon.attacks.toolkit.projections import TINY, region
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.metrics.distances import clip_, like

TILES = 5  # a side: the grid of the first perturbation in L2 and L1
POWERS = {2: 2, 1: 4}  # of equation 2, by the exponent of the norm
SMALLEST_SIDE = 3  # pixels, of a window that has two halves
DRAWN = 64  # queries whose windows are drawn at once,
PICTURES = 4  # if they have no more pixels than so many pictures: memory is bounded by the batch
SPENT = 1 - 1e-6  # of the budget in L2 and L1: rounding must not take a point out of the ball


@plain(frozen=True)
class Windows:
    """The windows of M pictures and the changes in them, for T queries or for one.

    Args:
        places: the P pixels of each window in a flat picture, int64, shape ([T,] M, windows, P).
        forms: the values or shape of the first window, shape ([T,] M, C, P).
    """

    places: Tensor
    forms: Tensor

    def at(self, queries: Tensor, examples: Tensor) -> Windows:
        """Returns the windows of R pairs of query and example; both are int64, shape (R,)."""
        return Windows(self.places[queries, examples], self.forms[queries, examples])

    def index(self, number: int) -> Tensor:
        """Returns the pixels of one of the windows for each channel, shape (M, C, P)."""
        return self.places[:, number : number + 1].expand_as(self.forms)


@plain(frozen=True)
class Sampler(ABC):
    """Samples windows and changes points in them; pictures have shape (M, C, H, W)."""

    threat: ThreatModel

    @abstractmethod
    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns the starting points."""

    @abstractmethod
    def windows(
        self, inputs: Tensor, *, side: float, count: int, skip: int, streams: ExampleStreams
    ) -> Windows:
        """Returns random windows of about ``side`` pixels a side, for ``count`` queries.

        The queries are those after the first ``skip``.
        """

    @abstractmethod
    def change(
        self,
        best: Tensor,
        inputs: Tensor,
        *,
        examples: Tensor,
        windows: Windows,
        but: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns which of R windows change a best point, int64, and the changed points.

        Args:
            best: the best points of M examples.
            inputs: their inputs.
            examples: the examples of the windows, int64, shape (R,).
            windows: the windows.
            but: which windows are left out, bool, shape (R,); none if None.
        """


class LinfSampler(Sampler):
    """Samples windows of the square attack in L∞ (algorithm 2)."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns vertical stripes of one pixel, a sign for each channel and column."""
        _, channels, _, width = inputs.shape
        signs = streams.signs((channels, 1, width))
        return clip_(inputs.add(signs, alpha=self.threat.radius), self.threat.bounds)

    def windows(
        self, inputs: Tensor, *, side: float, count: int, skip: int, streams: ExampleStreams
    ) -> Windows:
        """Returns one square a query, and plus or minus epsilon for each channel, in the box."""
        squares = _draw(inputs, round(side), each=1, count=count, skip=skip, streams=streams)
        flat = inputs.flatten(2).expand(count, -1, -1, -1)
        values = flat.gather(3, squares.places.expand(-1, -1, flat.shape[2], -1))
        values.add_(squares.signs.unsqueeze(3), alpha=self.threat.radius)
        return Windows(squares.places, clip_(values, self.threat.bounds))

    def change(
        self,
        best: Tensor,
        inputs: Tensor,
        *,
        examples: Tensor,
        windows: Windows,
        but: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns points with one window at plus or minus epsilon, a sign for each channel."""
        index, values = windows.index(0), windows.forms
        channels = torch.arange(best.shape[1], device=best.device).unsqueeze(1)
        held = best.flatten(2)[examples.view(-1, 1, 1), channels, windows.places]
        differs = (held != values).flatten(1).any(1)
        rows = (differs if but is None else differs & ~but).nonzero().flatten()
        changed = best[examples[rows]]
        changed.flatten(2).scatter_(2, index[rows], values[rows])
        return rows, changed


class PyramidSampler(Sampler):
    """Algorithm 3 for L2, and its form for L1 in the second paper."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns a grid of windows, a sign for each channel and window.

        In L1 each of them is as long as the box is wide unless that makes the whole shorter than
        epsilon, and the result is projected.
        """
        _, channels, height, width = inputs.shape
        tiles = _tiles(height, width, order=self._order).to(inputs)
        signs = streams.signs((channels, len(tiles)))
        change = torch.einsum("mct,thw->mchw", signs, tiles).flatten(2)
        size = torch.linalg.vector_norm(change.flatten(1), self._order, dim=1)
        length = torch.full_like(size, self.threat.radius * SPENT)
        if self.threat.norm is Norm.L1 and self.threat.bounds is not None:
            length = torch.maximum(length, size * self.threat.bounds.width)
        return self._allowed(inputs, change.mul_(like(length / size.clamp(min=TINY), change)))

    def windows(
        self, inputs: Tensor, *, side: float, count: int, skip: int, streams: ExampleStreams
    ) -> Windows:
        """Returns two squares a query, of an odd number of pixels a side, and the shape of one."""
        pixels = max(round(side), SMALLEST_SIDE)
        pixels += pixels % 2 == 0
        squares = _draw(inputs, pixels, each=2, count=count, skip=skip, streams=streams)
        upright = _halves(squares.height, squares.width, order=self._order).to(inputs)
        shapes = upright.flatten().expand(*squares.turned.shape, -1)
        if squares.height == squares.width:
            shapes = torch.where(squares.turned.unsqueeze(2), upright.T.flatten(), shapes)
        return Windows(squares.places, squares.signs.unsqueeze(3) * shapes.unsqueeze(2))

    def change(
        self,
        best: Tensor,
        inputs: Tensor,
        *,
        examples: Tensor,
        windows: Windows,
        but: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns points with the budget of two windows in one of them."""
        if but is not None:
            rows = (~but).nonzero().flatten()
            left = Windows(windows.places[rows], windows.forms[rows])
            return rows, self.change(best, inputs, examples=examples[rows], windows=left)[1]
        best, inputs = best[examples], inputs[examples]
        order, channels = self._order, best.shape[1]
        one, two = windows.index(0), windows.index(1)
        change = (best - inputs).flatten(2)
        budget = (self.threat.radius * SPENT) ** order
        spent = _spent(change, order)
        unspent = (budget - spent.sum(1, keepdim=True)) / channels
        before = change.gather(2, one)
        change.scatter_(2, one, 0.0)
        freed = _spent(before, order).add_(_spent(change.gather(2, two), order))
        change.scatter_(2, two, 0.0)
        direction = _unit(before, order).add_(windows.forms)
        available = freed.add_(unspent).clamp_(min=0).pow_(1 / order).unsqueeze(2)
        if self.threat.norm is Norm.L1:
            available *= channels
        change.scatter_(2, one, _unit(direction, order).mul_(available))
        rows = torch.arange(len(best), device=best.device)
        return rows, self._allowed(inputs, change)

    @property
    def _order(self) -> int:
        """The exponent of the norm."""
        return 1 if self.threat.norm is Norm.L1 else 2

    def _allowed(self, inputs: Tensor, change: Tensor) -> Tensor:
        """Returns the changed inputs in the box, and in L1 in the ball; ``change`` is flat."""
        moved = inputs + change.view_as(inputs)
        if self.threat.norm is not Norm.L1:
            return clip_(moved, self.threat.bounds)
        points = clip_(moved.clone(), self.threat.bounds)
        # Points that clipping brings into the ball need no projection, which sorts.
        sizes = torch.linalg.vector_norm((points - inputs).flatten(1), 1, dim=1)
        far = (sizes > self.threat.radius).nonzero().flatten()
        if len(far):
            points[far] = region(inputs[far], threat=self.threat).project(moved[far])
        return points


SAMPLERS: dict[Norm, type[Sampler]] = {
    Norm.LINF: LinfSampler,
    Norm.L2: PyramidSampler,
    Norm.L1: PyramidSampler,
}


@plain(frozen=True)
class _Squares:
    """Random windows at T queries.

    Args:
        height: in pixels.
        width: in pixels.
        places: int64, shape (T, M, windows, height * width): the pixels in a flat picture.
        signs: plus or minus 1, shape (T, M, C).
        turned: whether a square is transposed, bool, shape (T, M).
    """

    height: int
    width: int
    places: Tensor
    signs: Tensor
    turned: Tensor


def _draw(
    inputs: Tensor, side: int, *, each: int, count: int, skip: int, streams: ExampleStreams
) -> _Squares:
    """Returns random windows, ``each`` a query, that fit into the pictures."""
    channels, rows, columns = inputs.shape[1:]
    height, width = min(max(side, 1), rows), min(max(side, 1), columns)
    numbers = channels + 2 * each + 1
    draws = streams.uniform((count, numbers), skip=skip * numbers).transpose(0, 1).contiguous()
    signs, places, turned = draws[..., :channels], draws[..., channels:-1], draws[..., -1]
    free = torch.tensor([rows - height + 1, columns - width + 1], device=inputs.device)
    corners = (places.reshape(count, len(inputs), each, 2) * free).long()
    top, left = torch.minimum(corners, free - 1).unbind(3)  # rounding may reach ``free``
    down = torch.arange(height, device=inputs.device).mul_(columns)
    across = torch.arange(width, device=inputs.device)
    window = (down.unsqueeze(1) + across).flatten()
    return _Squares(
        height,
        width,
        places=(top * columns + left).unsqueeze(3) + window,
        signs=torch.where(signs < 0.5, -1.0, 1.0),
        turned=turned < 0.5,
    )


def _halves(height: int, width: int, *, order: int) -> Tensor:
    """Returns a window of length 1 in the norm, with a positive and a negative half."""
    if height < width:
        return _halves(width, height, order=order).T
    upper = height // 2
    window = torch.cat(
        [_pyramid(upper, width, order=order), -_pyramid(height - upper, width, order=order)]
    )
    return _unit(window.flatten(), order).view_as(window)


def _pyramid(height: int, width: int, *, order: int) -> Tensor:
    """Returns equation 2 for a rectangle, of length 1 in the norm."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    depth = torch.maximum(down.unsqueeze(1), across)
    weights = torch.arange(1, max(height, width) // 2 + 2).double().pow(-POWERS[order])
    inward = weights.flip(0).cumsum(0).flip(0).float()
    values = inward[depth]
    return _unit(values.flatten(), order).view_as(values)


def _tiles(height: int, width: int, *, order: int) -> Tensor:
    """Returns the windows of a grid in the middle of a picture, shape (T, height, width)."""
    tall, wide = max(height // TILES, 1), max(width // TILES, 1)
    across, down = min(TILES, width), min(TILES, height)
    top, left = (height - down * tall) // 2, (width - across * wide) // 2
    window = _halves(tall, wide, order=order)
    tiles = torch.zeros(down * across, height, width)
    for number, tile in enumerate(tiles):
        row = top + number // across * tall
        column = left + number % across * wide
        tile[row : row + tall, column : column + wide] = window
    return tiles


def _unit(windows: Tensor, order: int) -> Tensor:
    """Returns vectors divided by their length in the norm, or 0 for a vector of zeros."""
    sizes: Tensor = torch.linalg.vector_norm(windows, order, dim=-1, keepdim=True)
    return windows / sizes.clamp(min=TINY)


def _spent(change: Tensor, order: int) -> Tensor:
    """Returns the share of the budget that each channel of a change uses, shape (M, C)."""
    lengths: Tensor = torch.linalg.vector_norm(change, order, dim=2)
    return lengths.pow_(order)
