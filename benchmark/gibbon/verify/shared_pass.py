"""One prediction of the candidates that a direction gives at several epsilons.

A pass on a small batch takes nearly as long as one on a few times as many examples.  The candidates
of all epsilons are therefore predicted at once if they are few.  Passes are counted by example, for
the epsilon that they belong to, as if they had been made one after another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gibbon.attacks.base import move
from gibbon.core.threat import ThreatModel
from gibbon.datasets.base import Batch
from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import add_passes
from gibbon.models.votes import Votes
from gibbon.verify.unchanged_state import unchanged_state

# Far less than the backward pass of a full batch takes.
MOST_EXAMPLES = 512
MOST_NUMBERS = 1 << 20


class SharedPass:
    """The candidates of a direction at several epsilons, and the source's outputs for them.

    Args:
        inputs: shape (N, *input_shape).
        direction: of the same shape.
        threats: the epsilons, and the box.
    """

    def __init__(self, inputs: Tensor, direction: Tensor, threats: Sequence[ThreatModel]) -> None:
        self._points = [move(inputs, direction, threat=each) for each in threats]
        self._outputs: dict[int, Tensor] | None = None

    @staticmethod
    def is_worthwhile(inputs: Tensor, threats: Sequence[ThreatModel]) -> bool:
        """Returns whether there are several epsilons, and few candidates in all."""
        count = len(threats) * len(inputs)
        few = count <= MOST_EXAMPLES and len(threats) * inputs.numel() <= MOST_NUMBERS
        return len(threats) > 1 and few

    def points(self, position: int) -> Tensor:
        """Returns the candidates at one of the epsilons, shape (N, *input_shape)."""
        return self._points[position]

    def votes(self, position: int, source: Classifier, batch: Batch) -> Votes | None:
        """Returns the source's answers at one of the epsilons, whose candidates are valid.

        The first call makes the pass, for this epsilon and those after it.  Returns None, and
        counts nothing, if the source is random or the pass failed: it may be made for this epsilon
        alone.
        """
        if source.draws.count > 1:
            return None
        if self._outputs is None:
            self._outputs = self._predict(position, source)
        outputs = self._outputs.pop(position, None)
        if outputs is None:
            return None
        add_passes(source.passes, forward=len(outputs))
        return Votes(outputs.unsqueeze(0), batch.labels, source.outputs)

    def _predict(self, position: int, source: Classifier) -> dict[int, Tensor]:
        left = self._points[position:]
        try:
            with unchanged_state(source), source.uncounted():
                outputs = source.predict(torch.cat(left))
        # Also for want of memory.  Each epsilon then has a pass of its own, which fails by itself.
        except Exception:  # noqa: BLE001
            return {}
        return dict(enumerate(outputs.chunk(len(left)), start=position))
