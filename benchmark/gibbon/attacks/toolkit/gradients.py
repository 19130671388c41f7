"""Input gradients of an attack, and the check that all of them are finite.

``sign(NaN)`` is 0 in torch: an attack on a model with NaN gradients would stay at its input and
report robustness.  Such gradients fail the cell instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from gibbon.core.errors import OutputError
from gibbon.models.classifier import Classifier


class Gradients:
    """Outputs and input gradients of a classifier, checked over one run of an attack.

    Args:
        classifier: the model under attack.

    >>> import torch
    >>> module = torch.nn.Linear(2, 2)
    >>> gradients = Gradients(Classifier(module, classes=2, input_shape=(2,)))
    >>> outputs, gradient = gradients.at(torch.rand(3, 2), torch.ones_like)
    >>> gradients.check()
    >>> gradient.shape
    torch.Size([3, 2])
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._total: Tensor | None = None

    def at(
        self, points: Tensor, ascent: Callable[[Tensor], Tensor], *, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the outputs, shape (N, K), and an input gradient of the points' shape.

        ``ascent`` maps outputs to the gradient of the objective in them (`Classifier.ascend`);
        ``rows`` are the rows of the run that the points belong to, None for all.  One forward and
        one backward pass.
        """
        outputs, gradient = self.classifier.ascend(points, ascent, rows=rows)
        if not self.classifier.watched:
            # One sum a pass, read once at the end: a NaN anywhere makes it NaN.
            total = gradient.sum()
            self._total = total if self._total is None else self._total + total
        return outputs, gradient

    def check(self) -> None:
        """Raises `OutputError` if a gradient since the start was NaN or infinite."""
        check_finite_gradients(self._total)


def check_finite_gradients(total: Tensor | None) -> None:
    """Raises `OutputError` if a sum over gradients is NaN or infinite; None passes."""
    if total is not None and not math.isfinite(total.item()):
        raise OutputError(
            "the model's input gradient is NaN or infinite: an attack that follows it would "
            "stay where it is and prove nothing; look for a root or a norm at 0, or for 0 / 0"
        )
