"""Attacks that look for the nearest adversarial example, whatever the epsilon.

A `MinimalNormAttack` searches once; what it finds serves every epsilon, and its distance is a
measurement of its own: the smallest adversarial distance of that example, as far as the attack
could tell.  At a fixed epsilon the candidate is the point found where it lies within the budget and
the clean input elsewhere: nothing is pulled into the budget, which would be another point.

What such searches have in common stands here too: what they are after (`Aim`), the nearest success
so far (`Nearest`), and the search for the constant that weighs distance against success
(`Constants`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from torch import Tensor

from gibbon.attacks.base import Attack, SharedWork
from gibbon.attacks.toolkit.minimal_search import within
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.classifier import Classifier


class MinimalNormAttack(Attack):
    """An attack that minimises the distance to the input rather than staying within a budget."""

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
        """Yields one or more tries, each of the inputs' shape and dtype.

        A try holds for each example a point near the input that the model gets wrong, as the attack
        believes, and the input itself where it found none.

        Args:
            classifier: the model under attack, in eval mode, parameters frozen.
            inputs: float32, shape (N, *input_shape); not to be changed.
            labels: int64, shape (N,): the true classes.
            norm: what distances are measured in.
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
        """Yields each try, with the input in the place of whatever lies outside the budget."""
        tries = self.nearest(
            classifier,
            inputs,
            labels=labels,
            norm=threat.norm,
            bounds=threat.bounds,
            streams=streams,
        )
        for found in tries:
            yield within(inputs, found, threat=threat)
