"""The fast gradient sign method with the gradient of plain float32 code.

See `gibbon.attacks.fgsm` for the method and its source.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FGSMNaive(DirectionAttack):
    """Steps by epsilon along the sign of the loss's gradient as float32 autograd forms it.

    If the softmax of the true class rounds to 1, that gradient loses its largest term; at the
    extreme it is zero and the example does not move.  The paper's code must have used it, and most
    libraries do.
    """

    def direction(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Tensor:
        """Returns the sign of the gradient: one forward and one backward pass."""
        return classifier.loss_gradient(inputs, labels).sign()
