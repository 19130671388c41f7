"""The candidates of an attack at one epsilon, behind one interface for every kind of attack.

Which leaf of `Proposal` an attack gets follows from the work that it shares between epsilons
(`gibbon.attacks.base.SharedWork`):

- `TriesProposal`: nothing is shared; a list of candidates for this epsilon alone.
- `DirectionProposal`: a direction, along which each epsilon goes its own length.
- `SearchProposal`: a `MinimalNormSearch`, of which each epsilon takes the points within reach.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import Tensor

from gibbon.attacks.base import (
    Attack,
    DirectionAttack,
    SharedWork,
    copied,
    is_ours,
    move,
    one_copied,
    tries_of,
)
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.minimal_search import within
from gibbon.core.errors import AttackError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.datasets.base import Batch
from gibbon.metrics.distances import distances, like
from gibbon.metrics.validity import LINF_TOLERANCE, Checked, check, outside
from gibbon.models.classifier import Classifier, Watch
from gibbon.models.votes import Votes
from gibbon.verify.answers import clean_votes, votes_for
from gibbon.verify.shared_pass import SharedPass

NOT_CARRIED = "misclassified examples are carried within a batch along one direction only"


@dataclass(frozen=True)
class TryResult:
    """The candidates of one try, one for each example, with votes and distances if known.

    Args:
        points: shape (N, *input_shape).
        votes: the source's answers for the points; None if it must be evaluated.
        nearest: float32, shape (N,): the smallest adversarial distance over all tries; None unless
            the attack searches for it.
        shared: the pass that the source is evaluated in if the points are valid; None if alone.
        position: of the points in that pass.
    """

    points: Tensor
    votes: Votes | None = None
    nearest: Tensor | None = None
    shared: SharedPass | None = None
    position: int = 0

    def check(self, inputs: Tensor, *, threat: ThreatModel, bounds: Bounds) -> Checked:
        """Checks the points (`gibbon.metrics.validity.check`), all of a shared pass at once."""
        measured = None if self.shared is None else self.shared.measured(self.position)
        return check(self.points.detach(), inputs, threat=threat, bounds=bounds, measured=measured)

    def answers(self, source: Classifier, batch: Batch, points: Tensor, *, sound: bool) -> Votes:
        """Returns the source's answers for the points that were checked.

        ``sound`` says whether all of them were valid, so that they are those of the try.
        """
        votes = self.votes
        if votes is None and self.shared is not None and sound:
            votes = self.shared.votes(self.position, source, batch)
        return votes_for(source, batch, points) if votes is None else votes


class Proposal(ABC):
    """The candidates of an attack for one batch and one threat model, one tensor a try."""

    @abstractmethod
    def __iter__(self) -> Iterator[Tensor]:
        """Yields the candidates of each try, shape (N, *input_shape); evaluates nothing."""

    @abstractmethod
    def tries(
        self, source: Classifier, batch: Batch, *, watch: Watch | None
    ) -> Iterator[TryResult]:
        """Yields the candidates of each try, with votes and distances if they are known.

        ``watch`` saves a pass over the clean inputs if the attack made one.
        """

    @abstractmethod
    def take(self, rows: Tensor) -> Proposal:
        """Returns the proposal for some of the examples, at these positions, int64, shape (M,).

        Raises `AttackError` unless the epsilons share a direction.
        """


@dataclass(frozen=True)
class TriesProposal(Proposal):
    """Candidates that were made for one threat model alone.

    >>> [each.tolist() for each in TriesProposal([torch.zeros(1, 2), torch.ones(1, 2)])]
    [[[0.0, 0.0]], [[1.0, 1.0]]]
    """

    points: Iterable[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        """Yields each try; those of an attack that is still running can be read once."""
        return iter(self.points)

    def tries(
        self, source: Classifier, batch: Batch, *, watch: Watch | None
    ) -> Iterator[TryResult]:
        """Yields each try; the source must evaluate all of them."""
        return map(TryResult, self)

    def take(self, rows: Tensor) -> Proposal:
        """Raises `AttackError`."""
        raise AttackError(NOT_CARRIED)


@dataclass(frozen=True)
class DirectionProposal(Proposal):
    """The one candidate of a `DirectionAttack` at one epsilon.

    Args:
        inputs: shape (N, *input_shape).
        direction: of the same shape.
        threat: the epsilon, and the box to stay in.
        shared: the pass for several epsilons; None if each has its own.
        position: of the epsilon in that pass.
    """

    inputs: Tensor
    direction: Tensor
    threat: ThreatModel
    shared: SharedPass | None = None
    position: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        """Yields ``inputs + epsilon * direction``."""
        if self.shared is not None:
            yield self.shared.points(self.position)
        else:
            yield move(self.inputs, self.direction, threat=self.threat)

    def tries(
        self, source: Classifier, batch: Batch, *, watch: Watch | None
    ) -> Iterator[TryResult]:
        """Yields the candidate; the source must evaluate it."""
        return (TryResult(each, shared=self.shared, position=self.position) for each in self)

    def take(self, rows: Tensor) -> DirectionProposal:
        """Returns the proposal for the examples at these positions."""
        return DirectionProposal(self.inputs[rows], self.direction[rows], self.threat)


class MinimalNormSearch:
    """The points that one minimal-norm search found, which serve every epsilon.

    The smallest adversarial distance of an example is the least distance among the points that are
    finite, within the bounds and misclassified by the source, whatever the attack claims.  It is 0
    if the clean input is misclassified, and NaN if no point counts.

    Args:
        found: the points, one tensor a try, each of shape (N, *input_shape).
        norm: the norm that distances are measured in.
        bounds: the box that points must lie in, or None.
    """

    def __init__(self, found: Sequence[Tensor], *, norm: Norm, bounds: Bounds | None) -> None:
        self.found = found
        self.norm = norm
        self.bounds = bounds
        self._answers: SearchAnswers | None = None

    def answers(self, source: Classifier, batch: Batch, *, watch: Watch | None) -> SearchAnswers:
        """Returns the source's answers; only the first call computes them."""
        if self._answers is None:
            clean = clean_votes(source, batch, watch=watch)
            clean_wrong = clean.predicted != batch.labels
            points = tuple(self._ask(found, source, batch, clean=clean) for found in self.found)
            nearest = torch.where(clean_wrong, 0.0, torch.nan).float()
            for each in points:
                distance = each.distance.float().masked_fill(~each.misclassified, torch.nan)
                nearest = torch.fmin(nearest, distance)  # NaN only if both are
            self._answers = SearchAnswers(points, clean, clean_wrong, nearest)
        return self._answers

    def _ask(self, found: Tensor, source: Classifier, batch: Batch, *, clean: Votes) -> FoundPoint:
        distance = distances(found, batch.inputs, norm=self.norm)
        counts = torch.isfinite(distance)
        if self.bounds is not None:
            slack = LINF_TOLERANCE * source.bounds.width
            counts &= ~outside(found, self.bounds, slack=slack)
        # The clean input stands for a point that is missing or does not count.
        moved = counts & (found != batch.inputs).flatten(1).any(1)
        votes = clean
        if bool(moved.any()):
            safe = torch.where(like(moved, found), found, batch.inputs)
            votes = votes_for(source, batch, safe).where(moved, clean)
        return FoundPoint(found, votes, distance, counts & (votes.predicted != batch.labels))


@dataclass(frozen=True)
class SearchProposal(Proposal):
    """The tries of a minimal-norm search at one epsilon.

    Args:
        search: the points found, for every epsilon.
        inputs: shape (N, *input_shape).
        threat: the epsilon, in the norm and box of the search.
    """

    search: MinimalNormSearch
    inputs: Tensor
    threat: ThreatModel

    def __iter__(self) -> Iterator[Tensor]:
        """Yields each try: the points found within epsilon, the inputs in place of the others."""
        return (within(self.inputs, found, threat=self.threat) for found in self.search.found)

    def tries(
        self, source: Classifier, batch: Batch, *, watch: Watch | None
    ) -> Iterator[TryResult]:
        """Yields each try with the source's answers, which serve every epsilon.

        The clean input also stands if it is misclassified and the point found is not.
        """
        answers = self.search.answers(source, batch, watch=watch)
        for point in answers.points:
            reached = point.distance <= self.threat.radius
            taken = reached & (point.misclassified | ~answers.clean_wrong)
            yield TryResult(
                torch.where(like(taken, batch.inputs), point.found, batch.inputs),
                point.votes.where(taken, answers.clean),
                answers.nearest,
            )

    def take(self, rows: Tensor) -> Proposal:
        """Raises `AttackError`."""
        raise AttackError(NOT_CARRIED)


@dataclass(frozen=True)
class FoundPoint:
    """The point of one try of a minimal-norm search, and the source's answers for it.

    Args:
        found: shape (N, *input_shape).
        votes: the source's answers; those for the clean input if the point does not count.
        distance: shape (N,).
        misclassified: bool, shape (N,): finite, within the bounds and misclassified.
    """

    found: Tensor
    votes: Votes
    distance: Tensor
    misclassified: Tensor


@dataclass(frozen=True)
class SearchAnswers:
    """The source's answers for the points of a minimal-norm search and for the clean inputs.

    Args:
        points: one for each try.
        clean: the answers for the clean inputs.
        clean_wrong: bool, shape (N,): whether the clean input is misclassified.
        nearest: float32, shape (N,): the smallest adversarial distance.
    """

    points: tuple[FoundPoint, ...]
    clean: Votes
    clean_wrong: Tensor
    nearest: Tensor


def propose(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threats: Sequence[ThreatModel],
    streams: ExampleStreams,
) -> Iterator[Proposal]:
    """Returns an iterator over the proposals of an attack, one for each threat model, in order.

    Work that the threat models share is done once, before the first proposal that needs it.
    """
    make = MAKERS[attack.shares]
    return make(attack, source, batch, threats=threats, streams=streams)


def direction_of(
    attack: Attack, source: Classifier, batch: Batch, *, streams: ExampleStreams
) -> Tensor:
    """Returns a plain copy of the direction of an attack that shares one among all epsilons.

    Raises `AttackError` if the attack returns anything but a tensor of the inputs' shape and dtype.
    """
    direction = cast("DirectionAttack", attack).direction(
        source, batch.inputs, labels=batch.labels.clone(), streams=streams
    )
    return one_copied(direction, batch.inputs, what="direction")


def _directions(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threats: Sequence[ThreatModel],
    streams: ExampleStreams,
) -> Iterator[DirectionProposal]:
    direction = direction_of(attack, source, batch, streams=streams)
    shared: SharedPass | None = None
    if is_ours(attack) and SharedPass.is_worthwhile(batch.inputs, threats):
        shared = SharedPass(batch.inputs, direction, threats)
    for position, threat in enumerate(threats):
        yield DirectionProposal(batch.inputs, direction, threat, shared, position)


def _searches(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threats: Sequence[ThreatModel],
    streams: ExampleStreams,
) -> Iterator[SearchProposal]:
    searching = cast("MinimalNormAttack", attack)

    @cache
    def search(norm: Norm, bounds: Bounds | None) -> MinimalNormSearch:
        labels = batch.labels.clone()
        ours, box = is_ours(attack), copy.deepcopy(bounds)
        found = searching.nearest(
            source, batch.inputs, labels=labels, norm=norm, bounds=box, streams=streams
        )
        points = list(copied(found, batch.inputs, what="point found", ours=ours))
        return MinimalNormSearch(points, norm=norm, bounds=bounds)

    for threat in threats:
        yield SearchProposal(search(threat.norm, threat.bounds), batch.inputs, threat)


def _separate_tries(
    attack: Attack,
    source: Classifier,
    batch: Batch,
    *,
    threats: Sequence[ThreatModel],
    streams: ExampleStreams,
) -> Iterator[TriesProposal]:
    for threat in threats:
        tries = tries_of(
            attack, source, batch.inputs, labels=batch.labels, threat=threat, streams=streams
        )
        yield TriesProposal(tries)


# The maker of an attack's proposals, by the work that it shares between threat models.
MAKERS: Mapping[SharedWork, Callable[..., Iterator[Proposal]]] = {
    SharedWork.DIRECTION: _directions,
    SharedWork.SEARCH: _searches,
    SharedWork.NOTHING: _separate_tries,
}
