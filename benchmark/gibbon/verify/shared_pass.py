"""One prediction of the candidates that a direction gives at several epsilons.

A pass on a small batch takes nearly as long as one on a few times as many examples.  The candidates
of all epsilons are therefore predicted at once if they are few.  Passes are counted by example, for
the epsilon that they belong to, as if they had been made one after another.  If memory runs out,
fewer epsilons are predicted at once, in this batch and in later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gibbon.attacks.base import move
from gibbon.core.threat import ThreatModel
from gibbon.datasets.base import Batch
from gibbon.metrics.validity import CandidateDistances, measure_candidates
from gibbon.models.classifier import Classifier
from gibbon.models.memory import give_back, is_shortage
from gibbon.models.pass_count import add_passes
from gibbon.models.votes import Votes
from gibbon.verify.unchanged_state import unchanged_state

# Far less than the backward pass of a full batch takes.
MOST_EXAMPLES = 512
MOST_NUMBERS = 1 << 20

# Examples that memory held at most, of models for which it ran out.
_HELD: WeakKeyDictionary[Classifier, int] = WeakKeyDictionary()


class SharedPass:
    """The candidates of a direction at several epsilons, and the source's outputs for them.

    Args:
        inputs: shape (N, *input_shape).
        direction: of the same shape.
        threats: the epsilons, in one norm and one box.
    """

    def __init__(self, inputs: Tensor, direction: Tensor, threats: Sequence[ThreatModel]) -> None:
        moved = [move(inputs, direction, threat=each) for each in threats]
        self._inputs, self._norm = inputs, threats[0].norm
        self._points = torch.stack(moved)
        self._measured: list[CandidateDistances] = []
        self._votes: dict[int, Votes] = {}
        self._tried = 0  # epsilons before this position were predicted, or can't be at once

    @staticmethod
    def is_worthwhile(inputs: Tensor, threats: Sequence[ThreatModel]) -> bool:
        """Returns whether there are several epsilons, and few candidates in all."""
        count = len(threats) * len(inputs)
        few = count <= MOST_EXAMPLES and len(threats) * inputs.numel() <= MOST_NUMBERS
        return len(threats) > 1 and few

    def points(self, position: int) -> Tensor:
        """Returns the candidates at one of the epsilons, shape (N, *input_shape)."""
        return self._points[position]

    def measured(self, position: int) -> CandidateDistances:
        """Returns the measurements of the candidates at one of the epsilons."""
        if not self._measured:
            self._measured = measure_candidates(self._points, self._inputs, norm=self._norm)
        return self._measured[position]

    def votes(self, position: int, source: Classifier, batch: Batch) -> Votes | None:
        """Returns the source's answers at one of the epsilons, whose candidates are valid.

        The first call makes the pass, for this epsilon and those after it, or as many as memory
        holds.  Returns None, and counts nothing, if the source is random, the pass failed, or would
        hold this epsilon alone: it may be made in the usual way.
        """
        if source.draws.count > 1:
            return None
        if position >= self._tried:
            self._predict(position, source, batch.labels)
        votes = self._votes.pop(position, None)
        if votes is not None:
            add_passes(source.passes, forward=len(batch.labels))
        return votes

    def _predict(self, position: int, source: Classifier, labels: Tensor) -> None:
        """Predicts the candidates of several epsilons, beginning with one."""
        left, count = self._points[position:], len(labels)
        number = min(len(left), _HELD.get(source, MOST_EXAMPLES) // max(1, count))
        while number > 1:
            try:
                with unchanged_state(source), source.uncounted():
                    outputs = source.predict(left[:number].flatten(0, 1))
            except Exception as error:  # noqa: BLE001
                if not is_shortage(error):  # each epsilon has a pass, which fails by itself
                    self._tried = len(self._points)
                    return
            else:
                whole = Votes(outputs.unsqueeze(0), labels.repeat(number), source.outputs)
                self._votes = dict(enumerate(whole.split(number), start=position))
                break
            _HELD[source] = number * count // 2
            give_back(left.device)
            number //= 2
        self._tried = position + max(1, number)
