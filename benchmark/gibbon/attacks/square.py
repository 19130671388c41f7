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
from collections.abc import Callable, Iterator
from dataclasses import dataclass as plain
from functools import partial
from itertools import groupby
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STOPPING, STRICT, Attack
from gibbon.attacks.toolkit.lookahead import Pace, leading, upcoming
from gibbon.attacks.toolkit.minimal_search import Aim
from gibbon.attacks.toolkit.square_windows import DRAWN, PICTURES, SAMPLERS, Sampler, Windows
from gibbon.attacks.toolkit.targets import Target
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier

# Section 4: the share of pixels in a window is halved after so many of 10,000 queries.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Square(Attack):
    """Tries changes in random windows and keeps those that help.

    It takes no gradients.  One query is one forward pass at most: where a window already holds what
    it is set to, as often in L∞, the answer is known and the model is not asked.  The clean query
    comes on top of ``queries``.  Examples that are misled leave the batch, with the point that
    misled them; the others return the point with the best loss.  A vector is treated as a picture
    of one row.

    Where ``ahead`` is more than 1, several queries of an example are asked in one batch, as far as
    a full batch has room, and the first that helps is kept (`gibbon.attacks.toolkit.lookahead`).  What is
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


def _picture(shape: torch.Size) -> tuple[int, int, int]:
    """Returns an input's shape as channels, height and width."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _at_once(share: float, times: int) -> int:
    """Returns for how many queries windows are drawn at once.

    A full batch has so many ``times`` the examples that are left.
    """
    return min(DRAWN * times, max(1, int(PICTURES * times / share)))
