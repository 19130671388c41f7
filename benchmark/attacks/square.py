r"""The square attack: random search over square windows, without gradients.

Algorithm 1: sample a window and a change in it, and keep the change where it lowers the margin of
the true class.  In L∞ (algorithm 2) every channel of the window is set to
:math:`x \pm \epsilon`; in L2 (algorithm 3) the budget of two windows, and what was not spent, is
moved into one of them along

.. math::
    \eta_{r,s} \propto \sum_{k = d(r,s)}^{n} \frac{1}{(k+1)^2}

(equation 2), d being the distance from the centre, one half of the window up, the other down.

L1 is the second paper's: algorithm 3 with budgets that are sums of absolute values, the fourth
power in the place of the square in equation 2, and, for C channels, C times the budget in the
window.  What comes out is projected onto the ball cut with the box, which takes from all
coordinates alike, and so leaves few.

Sources: M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square attack: a query-efficient
black-box adversarial attack via random search", ECCV 2020, https://arxiv.org/abs/1912.00049;
F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021, the section on the square attack in L1, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass as plain
from functools import partial
from itertools import groupby
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmark.attacks.ahead import Pace, leading, upcoming
from benchmark.attacks.base import STRICT, Attack
from benchmark.attacks.iterates import STOPPING
from benchmark.attacks.minimal import Aim
from benchmark.attacks.projections import TINY, like, region
from benchmark.attacks.targets import Target
from benchmark.classifier import Classifier
from benchmark.rng import ExampleStreams
from benchmark.threat import Norm, ThreatModel

# Section 4: the share of pixels in a window is halved after so many of 10,000 queries.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000
TILES = 5  # a side: the grid of the first perturbation in L2 and L1
POWERS = {2: 2, 1: 4}  # of equation 2, by the exponent of the norm
SMALLEST_SIDE = 3  # pixels, of a window that has two halves
DRAWN = 64  # queries whose windows are drawn at once,
PICTURES = 4  # if they have no more pixels than so many pictures: memory is bounded by the batch
SPENT = 1 - 1e-6  # of the budget in L2 and L1: rounding must not take a point out of the ball


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Square(Attack):
    """Tries changes in random windows and keeps those that help.

    It takes no gradients.  One query is one forward pass at most: where a window already holds what
    it is set to, as often in L∞, the answer is known and the model is not asked.  The clean query
    comes on top of ``queries``.  Examples that are misled leave the batch, with the point that
    misled them; the others return the point with the best loss.  A vector is treated as a picture
    of one row.

    Where ``ahead`` is more than 1, several queries of an example are asked in one batch, as far as
    a full batch has room, and the first that helps is kept (`benchmark.attacks.ahead`).  What is
    found is the same, up to rounding that hangs on the size of a batch; the forward passes count
    what was asked, also in vain, and may be more than ``queries``.

    Args:
        queries: at most so many for each example and restart.
        share: p, the share of pixels in the first windows.  0.8 is AutoAttack's; for ImageNet the
            paper takes 0.05 in L∞ and 0.1 in L2.
        schedule: the number of queries over which windows shrink; ``queries`` where it is left out,
            as in the paper.  AutoAttack's is 10,000, of which it makes the first half.
        restarts: runs with other random numbers, for those that were not misled before; each yields
            one candidate.
        ahead: at most so many queries of an example are asked at once; 1 is the paper's, for a
            model that is a black box, where every query counts.
        target: which class is aimed at, ``"none"`` for any wrong one.  The loss is the margin, and
            the cross-entropy of the target, as in the paper.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    version: ClassVar[int] = 2
    needs_gradient: ClassVar[bool] = False
    iterate: ClassVar[str] = STOPPING

    queries: Annotated[int, Field(ge=1)] = 5000
    share: Annotated[float, Field(gt=0, le=1)] = 0.8
    schedule: Annotated[int, Field(ge=1)] | None = None
    restarts: Annotated[int, Field(ge=1)] = 1
    ahead: Annotated[int, Field(ge=1)] = 1
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
        ask = partial(self._ask, classifier, inputs.shape[1:])
        room = max(classifier.room, len(inputs))
        pace = Pace(room=room, most=self.ahead)
        sampler = SAMPLERS[threat.norm](threat)
        start = inputs.flatten(1).view(len(inputs), *_picture(inputs.shape[1:]))
        best = sampler.first(start, streams=streams.child("first"))
        values, succeeded = ask(best, aim)
        final, live = best.clone(), (~succeeded).nonzero().flatten()
        state = _State(start, best, values, aim, streams.child("changes")).take(live)
        for run, share in self._runs():
            while run and len(live):
                part = run[: _at_once(share, room // len(live))]
                run = run[len(part) :]
                windows = sampler.windows(
                    state.start,
                    side=math.sqrt(share * start.shape[2:].numel()),
                    count=len(part),
                    skip=part.start,
                    streams=state.streams,
                )
                reached = _change(
                    state, windows, sampler=sampler, count=len(part), pace=pace, ask=ask
                )
                if bool(reached.any()):
                    final[live], succeeded[live] = state.best, reached
                    keep = (~reached).nonzero().flatten()
                    live, state = live[keep], state.take(keep)
        final[live] = state.best
        return final.view_as(inputs), succeeded

    def _ask(
        self, classifier: Classifier, shape: torch.Size, points: Tensor, aim: Aim
    ) -> tuple[Tensor, Tensor]:
        outputs = classifier(points.view(len(points), *shape))
        margins = aim.margin(outputs)
        reached = margins > aim.required(outputs)
        if aim.targeted:
            return -classifier.outputs.exact_loss(outputs, aim.classes), reached
        return margins, reached

    def _runs(self) -> Iterator[tuple[range, float]]:
        """Yields runs of changes of one window size, the first change being 0, and the share."""
        for share, run in groupby(range(self.queries - 1), key=self._share):
            numbers = list(run)
            yield range(numbers[0], numbers[-1] + 1), share

    def _share(self, change: int) -> float:
        """Returns the share of pixels in the window of a change, the first being 0."""
        place = (change + 1) / (self.schedule or self.queries) * SCHEDULE
        halvings = sum(place > halving for halving in HALVINGS)
        return math.ldexp(self.share, -halvings)


@plain(frozen=True)
class Windows:
    """Where M pictures are changed and into what, at T queries or at one of them.

    Args:
        places: the P pixels of each window in a flat picture, int64, shape ([T,] M, windows, P).
        forms: what goes into the first window, shape ([T,] M, C, P).
    """

    places: Tensor
    forms: Tensor

    def at(self, turns: Tensor, examples: Tensor) -> Windows:
        """Returns one query of one example each, R in all; both are int64, shape (R,)."""
        return Windows(self.places[turns, examples], self.forms[turns, examples])

    def index(self, number: int) -> Tensor:
        """Returns the pixels of one of the windows for each channel, shape (M, C, P)."""
        return self.places[:, number : number + 1].expand_as(self.forms)


@plain(frozen=True)
class Sampler(ABC):
    """How points are changed; pictures have shape (M, C, H, W)."""

    threat: ThreatModel

    @abstractmethod
    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns the points to start from."""

    @abstractmethod
    def windows(
        self, inputs: Tensor, *, side: float, count: int, skip: int, streams: ExampleStreams
    ) -> Windows:
        """Returns random windows of about ``side`` pixels a side, for ``count`` queries.

        They are those that follow the first ``skip``.
        """

    @abstractmethod
    def change(
        self, best: Tensor, inputs: Tensor, *, examples: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor]:
        """Returns which of R windows change a best point, int64, and what it becomes.

        ``examples`` says whose windows they are, int64, shape (R,).
        """


class LinfSampler(Sampler):
    """Algorithm 2."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns vertical stripes of one pixel, a sign for each channel and column."""
        _, channels, _, width = inputs.shape
        signs = streams.signs((channels, 1, width))
        return _boxed(inputs.add(signs, alpha=self.threat.radius), self.threat)

    def windows(
        self, inputs: Tensor, *, side: float, count: int, skip: int, streams: ExampleStreams
    ) -> Windows:
        """Returns one square a query, and plus or minus epsilon for each channel, in the box."""
        squares = _draw(inputs, round(side), each=1, count=count, skip=skip, streams=streams)
        flat = inputs.flatten(2).expand(count, -1, -1, -1)
        values = flat.gather(3, squares.places.expand(-1, -1, flat.shape[2], -1))
        values.add_(squares.signs.unsqueeze(3), alpha=self.threat.radius)
        return Windows(squares.places, _boxed(values, self.threat))

    def change(
        self, best: Tensor, inputs: Tensor, *, examples: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor]:
        """Returns points with one window at plus or minus epsilon, a sign for each channel."""
        index, values = windows.index(0), windows.forms
        channels = torch.arange(best.shape[1], device=best.device).unsqueeze(1)
        held = best.flatten(2)[examples.view(-1, 1, 1), channels, windows.places]
        rows = (held != values).flatten(1).any(1).nonzero().flatten()
        changed = best[examples[rows]]
        changed.flatten(2).scatter_(2, index[rows], values[rows])
        return rows, changed


class PyramidSampler(Sampler):
    """Algorithm 3, and what the second paper makes of it in L1."""

    def first(self, inputs: Tensor, *, streams: ExampleStreams) -> Tensor:
        """Returns a grid of windows, a sign for each channel and window.

        In L1 each of them is as long as the box is wide, if that makes the whole no shorter than
        epsilon, and projected.
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
        self, best: Tensor, inputs: Tensor, *, examples: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor]:
        """Returns points with the budget of two windows in one of them."""
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
            return _boxed(moved, self.threat)
        points = _boxed(moved.clone(), self.threat)
        # What the box alone brings into the ball needs no projection, which sorts.
        sizes = torch.linalg.vector_norm((points - inputs).flatten(1), 1, dim=1)
        far = (sizes > self.threat.radius).nonzero().flatten()
        if len(far):
            points[far] = region(inputs[far], threat=self.threat).project(moved[far])
        return points


@plain(frozen=True)
class _State:
    """Where M examples that no point misleads stand.

    Args:
        start: the inputs as pictures, shape (M, C, H, W).
        best: the best points so far, of that shape.
        values: their loss, shape (M,).
        aim: what they are after.
        streams: their random numbers.
    """

    start: Tensor
    best: Tensor
    values: Tensor
    aim: Aim
    streams: ExampleStreams

    def take(self, rows: Tensor) -> _State:
        """Returns the state of some of the examples."""
        return _State(
            self.start[rows],
            self.best[rows],
            self.values[rows],
            self.aim.take(rows),
            self.streams.take(rows),
        )


def _change(
    state: _State,
    windows: Windows,
    *,
    sampler: Sampler,
    count: int,
    pace: Pace,
    ask: Callable[[Tensor, Aim], tuple[Tensor, Tensor]],
) -> Tensor:
    """Makes ``count`` queries of each example, and says which reached the aim, bool, shape (M,).

    What is kept stands in the state.  Examples that reached the aim are asked no more.
    """
    turns = torch.zeros(len(state.best), dtype=torch.int64, device=state.best.device)
    reached = torch.zeros_like(turns, dtype=torch.bool)
    while waiting := int((turns < count).sum()):
        ahead = pace.ahead(waiting)
        examples, numbers = upcoming(turns, count=count, ahead=ahead)
        changing, tried = sampler.change(
            state.best, state.start, examples=examples, windows=windows.at(numbers, examples)
        )
        turns.add_(ahead)
        helped = 0
        if len(changing):
            owners = examples[changing]
            found, there = ask(tried, state.aim.take(owners))
            helping = ((found > state.values[owners]) | there).nonzero().flatten()
            helped = len(helping)
            if helped:
                helping = helping[leading(owners[helping])]
                kept, there = owners[helping], there[helping]
                state.best.index_copy_(0, kept, tried[helping])
                state.values.index_copy_(0, kept, found[helping])
                turns[kept] = torch.where(there, count, numbers[changing[helping]] + 1)
                reached[kept] = there
        pace.saw(len(examples), helped=helped)
    return reached


SAMPLERS: dict[Norm, type[Sampler]] = {
    Norm.LINF: LinfSampler,
    Norm.L2: PyramidSampler,
    Norm.L1: PyramidSampler,
}


def _picture(shape: torch.Size) -> tuple[int, int, int]:
    """Returns an input's shape as channels, height and width."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


@plain(frozen=True)
class _Squares:
    """Random windows at T queries.

    Args:
        height: in pixels.
        width: in pixels.
        places: int64, shape (T, M, windows, height * width): the pixels in a flat picture.
        signs: plus or minus 1, shape (T, M, C).
        turned: whether a square lies on its side, bool, shape (T, M).
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


def _at_once(share: float, times: int) -> int:
    """Returns for how many queries windows are drawn at once.

    A full batch has so many ``times`` the examples that are left.
    """
    return min(DRAWN * times, max(1, int(PICTURES * times / share)))


def _boxed(points: Tensor, threat: ThreatModel) -> Tensor:
    """Returns the points in the box; they are overwritten."""
    if threat.bounds is None:
        return points
    return points.clamp_(threat.bounds.low, threat.bounds.high)


def _halves(height: int, width: int, *, order: int) -> Tensor:
    """Returns a window of length 1 in the norm: one half of it up, the other down."""
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
    """Returns what a change of a channel takes of a budget that adds up, shape (M, C)."""
    lengths: Tensor = torch.linalg.vector_norm(change, order, dim=2)
    return lengths.pow_(order)
