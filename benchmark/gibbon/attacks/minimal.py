"""Minimal-norm attacks: searches for the nearest adversarial example, independent of epsilon.

A `MinimalNormAttack` searches once for all epsilons.  The distance of the point found is an upper
bound on the example's smallest adversarial distance.  At a fixed epsilon the candidate is the point
found if it lies within the budget, else the clean input: no point is projected into the budget,
which would make it another point.

Our own such attacks are a `NearestSearch`: they offer points, of which the nearest success of each
example is kept.  `gibbon.attacks.toolkit.minimal_search` holds their shared parts: the condition
for success (`Criterion`), the nearest success so far (`Nearest`), and the search for the constant
that weighs success against distance (`Constants`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from torch import Tensor

from gibbon.attacks.base import Attack, SearchMethod, SharedWork
from gibbon.attacks.toolkit.minimal_search import Nearest, within
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.classifier import Classifier


class MinimalNormAttack(Attack):
    """An attack that minimises the distance to the input, in place of staying within a budget."""

    search_method: ClassVar[SearchMethod] = SearchMethod.MINIMAL_NORM
    shares: ClassVar[SharedWork] = SharedWork.SEARCH
    iterate: ClassVar[str] = "nearest"

    @abstractmethod
    def nearest(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        norm: Norm,
        bounds: Bounds | None,
        streams: ExampleStreams,
    ) -> Iterable[Tensor]:
        """Yields one or more candidates, each of the inputs' shape and dtype.

        A candidate holds for each example a point near the input that the attack takes to be
        misclassified, or the input itself if it found none.

        Args:
            classifier: the model under attack, in eval mode, parameters frozen.
            inputs: float32, shape (N, *input_shape); not to be changed.
            labels: int64, shape (N,): the true classes.
            norm: the norm of distances.
            bounds: the box to stay in, or None.
            streams: random numbers, one stream an example.
        """

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields each candidate, with points outside the budget replaced by the input."""
        norm, bounds = threat.norm, threat.bounds
        tries = self.nearest(
            classifier, inputs, labels=labels, norm=norm, bounds=bounds, streams=streams
        )
        for found in tries:
            yield within(inputs, found, threat=threat)


class NearestSearch(MinimalNormAttack):
    """A minimal-norm attack whose candidate is the nearest success among the points it tries."""

    @abstractmethod
    def search(
        self, classifier: Classifier, nearest: Nearest, *, labels: Tensor, streams: ExampleStreams
    ) -> None:
        """Offers points to ``nearest``.

        Args:
            classifier: the model under attack, in eval mode, parameters frozen.
            nearest: keeps the nearest success; holds the inputs, the norm and the box.
            labels: int64, shape (N,): the true classes.
            streams: random numbers, one stream an example.
        """

    def nearest(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        norm: Norm,
        bounds: Bounds | None,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the nearest success of each example, or its input if there is none."""
        nearest = Nearest(inputs, norm=norm, bounds=bounds)
        self.search(classifier, nearest, labels=labels, streams=streams)
        yield nearest.points
