r"""The square attack: random search over square windows, without gradients.

Algorithm 1: sample a window and a change in it, and keep the change if it lowers the margin of the
true class.  In L∞ (algorithm 2) every channel of the window is set to
:math:`x \pm \epsilon`; in L2 (algorithm 3) the budget of two windows, and the unspent rest, is
moved into one of them along

.. math::
    \eta_{r,s} \propto \sum_{k = d(r,s)}^{n} \frac{1}{(k+1)^2}

(equation 2), with d the distance from the centre, positive in one half of the window and negative
in the other.

L1 follows the second paper: algorithm 3 with budgets that are sums of absolute values, the fourth
power instead of the square in equation 2, and, for C channels, C times the budget in the window.
The result is projected onto the intersection of ball and box, which shrinks all coordinates by the
same amount, and so leaves few.

Sources: M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square attack: a query-efficient
black-box adversarial attack via random search", ECCV 2020, https://arxiv.org/abs/1912.00049;
F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021, the section on the square attack in L1, https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass as plain
from itertools import groupby
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STOPPING, STRICT, Attack, Count, SearchMethod
from gibbon.attacks.toolkit.example_rows import ExampleRows
from gibbon.attacks.toolkit.lookahead import Lookahead, next_queries, run_starts
from gibbon.attacks.toolkit.minimal_search import Criterion
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
    """Tries changes in random windows and keeps those that improve the loss.

    It takes no gradients.  One query is one forward pass at most: a change that leaves the point as
    it is, frequent in L∞, costs none.  The clean query comes on top of ``queries``.  Misclassified
    examples leave the batch with their misclassified point; the others return the point of the best
    loss.  A vector is treated as a picture of one row.

    If ``ahead`` is more than 1, several queries of an example go into one batch as far as a full
    batch has room, and the first that improves is kept (`gibbon.attacks.toolkit.lookahead`).  The
    result does not change, up to rounding that depends on the size of a batch; forward passes count
    wasted queries too, and may be more than ``queries``.

    Args:
        queries: queries for each example and restart, at most.
        share: p, the share of pixels in the first windows.  0.8 is AutoAttack's; for ImageNet the
            paper uses 0.05 in L∞ and 0.1 in L2.
        schedule: the number of queries over which windows shrink; ``queries`` if None, as in the
            paper.  AutoAttack's is 10,000, of which it makes the first half.
        restarts: runs with other random numbers, on examples that are not misclassified yet; each
            yields one candidate.
        ahead: queries of an example in one batch, at most; 1 as in the paper, for a black-box model
            for which every query counts.
        target: the target class, ``"none"`` for any wrong one.  The loss is the margin, or with a
            target the cross-entropy of the target, as in the paper.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    search_method: ClassVar[SearchMethod] = SearchMethod.GRADIENT_FREE
    version: ClassVar[int] = 2
    needs_gradient: ClassVar[bool] = False
    iterate: ClassVar[str] = STOPPING

    queries: Count = 5000
    share: Annotated[float, Field(gt=0, le=1)] = 0.8
    schedule: Count | None = None
    restarts: Count = 1
    ahead: Count = 1
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
        criterion = Criterion.choose(self.target, classifier, inputs, labels, streams)
        done = criterion.met_at(classifier, inputs)
        candidates = inputs.clone()
        for restart in range(self.restarts):
            rows = (~done).nonzero().flatten()
            if len(rows):
                examples = _SquareExamples(inputs, criterion, streams.child(restart)).take(rows)
                with classifier.off_path():  # queries made ahead may be wasted
                    found, met = self._search(classifier, examples, threat=threat)
                candidates[rows], done[rows] = found, met
            yield candidates.clone()

    @torch.no_grad()
    def _search(
        self, classifier: Classifier, examples: _SquareExamples, *, threat: ThreatModel
    ) -> tuple[Tensor, Tensor]:
        """Returns the best points, shape (M, *input_shape), and which meet the criterion."""
        inputs, criterion, streams = examples.inputs, examples.criterion, examples.streams
        room = max(classifier.room, len(inputs))
        lookahead = Lookahead(room=room, most=self.ahead)
        sampler = SAMPLERS[threat.norm](threat)
        start = inputs.flatten(1).view(len(inputs), *_picture(inputs.shape[1:]))
        best = sampler.first(start, streams=streams.child("first"))
        values, succeeded = _loss(classifier, best, criterion)
        final, live = best.clone(), (~succeeded).nonzero().flatten()
        state = _SquareState(start, best, values, criterion, streams.child("changes")).take(live)
        for run, share in self._runs():
            side = math.sqrt(share * start.shape[2:].numel())
            while run and len(live):
                part = run[: _at_once(share, room // len(live))]
                run = run[len(part) :]
                windows = sampler.windows(
                    state.start, side=side, count=len(part), skip=part.start, streams=state.streams
                )
                met = _query(classifier, state, windows, sampler=sampler, lookahead=lookahead)
                if bool(met.any()):
                    final[live], succeeded[live] = state.best, met
                    keep = (~met).nonzero().flatten()
                    live, state = live[keep], state.take(keep)
        final[live] = state.best
        return final.view_as(inputs), succeeded

    def _runs(self) -> Iterator[tuple[range, float]]:
        """Yields ranges of changes with windows of one size, counted from 0, and their share."""
        for share, run in groupby(range(self.queries - 1), key=self._share):
            numbers = list(run)
            yield range(numbers[0], numbers[-1] + 1), share

    def _share(self, change: int) -> float:
        """Returns the share of pixels in the window of a change, counted from 0."""
        place = (change + 1) / (self.schedule or self.queries) * SCHEDULE
        halvings = sum(place > halving for halving in HALVINGS)
        return math.ldexp(self.share, -halvings)


@plain(frozen=True)
class _SquareExamples(ExampleRows):
    """The inputs of a restart, with their condition for success and random streams."""

    inputs: Tensor
    criterion: Criterion
    streams: ExampleStreams


@plain(frozen=True)
class _SquareState(ExampleRows):
    """The state of the search for M examples that are not misclassified yet.

    Args:
        start: the inputs as pictures, shape (M, C, H, W).
        best: the best points so far, of that shape.
        values: their loss, shape (M,).
        criterion: the condition for success.
        streams: random numbers, one stream an example.
    """

    start: Tensor
    best: Tensor
    values: Tensor
    criterion: Criterion
    streams: ExampleStreams


def _query(
    classifier: Classifier,
    state: _SquareState,
    windows: Windows,
    *,
    sampler: Sampler,
    lookahead: Lookahead,
) -> Tensor:
    """Makes all queries of each example, and returns which meet the criterion, bool, shape (M,).

    Changes that are kept are written into the state.  An example that meets the criterion makes no
    further queries.
    """
    if lookahead.is_off:
        return _query_one_by_one(classifier, state, windows, sampler=sampler)
    count = len(windows.places)
    following = torch.zeros(len(state.best), dtype=torch.int64, device=state.best.device)
    met = torch.zeros_like(following, dtype=torch.bool)
    while waiting := int((following < count).sum()):
        depth = lookahead.depth(waiting)
        examples, numbers = next_queries(following, count=count, depth=depth)
        changing, tried = sampler.change(
            state.best, state.start, examples=examples, windows=windows.at(numbers, examples)
        )
        following.add_(depth)
        improved = 0
        if len(changing):
            owners = examples[changing]
            values, success = _loss(classifier, tried, state.criterion.take(owners))
            improving = ((values > state.values[owners]) | success).nonzero().flatten()
            improved = len(improving)
            if improved:
                improving = improving[run_starts(owners[improving])]
                kept, success = owners[improving], success[improving]
                state.best.index_copy_(0, kept, tried[improving])
                state.values.index_copy_(0, kept, values[improving])
                following[kept] = torch.where(success, count, numbers[changing[improving]] + 1)
                met[kept] = success
        lookahead.update(len(examples), improved=improved)
    return met


def _query_one_by_one(
    classifier: Classifier, state: _SquareState, windows: Windows, *, sampler: Sampler
) -> Tensor:
    """Makes the queries of `_query` without speculative ones: one value is read back for each.

    All examples are at the same query, so that only the changed points have to be found.
    """
    met = torch.zeros(len(state.best), dtype=torch.bool, device=state.best.device)
    everyone = torch.arange(len(met), device=met.device)
    for places, forms in zip(windows.places, windows.forms, strict=True):
        rows, tried = sampler.change(
            state.best, state.start, examples=everyone, windows=Windows(places, forms), but=met
        )
        if not len(rows):
            if bool(met.all()):
                break
            continue
        best, before = state.best[rows], state.values[rows]
        values, success = _loss(classifier, tried, state.criterion.take(rows))
        improves = (values > before) | success
        state.best.index_copy_(0, rows, torch.where(improves.view(-1, 1, 1, 1), tried, best))
        state.values.index_copy_(0, rows, torch.where(improves, values, before))
        met.index_copy_(0, rows, success)
    return met


def _loss(classifier: Classifier, pictures: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """Returns the loss to maximise and whether the criterion is met, both of shape (M,)."""
    outputs = classifier(pictures.view(len(pictures), *classifier.input_shape))
    margins = criterion.margin(outputs)
    met = criterion.met(outputs, margins)
    if criterion.targeted:
        return -classifier.outputs.exact_loss(outputs, criterion.classes), met
    return margins, met


def _picture(shape: torch.Size) -> tuple[int, int, int]:
    """Returns an input's shape as channels, height and width."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _at_once(share: float, times: int) -> int:
    """Returns the number of queries whose windows are drawn in one call.

    A full batch has ``times`` as many examples as are left.
    """
    return min(DRAWN * times, max(1, int(PICTURES * times / share)))
