r"""The fast gradient sign method.

.. math::
    x' = x + \epsilon \, \mathrm{sign}(\nabla_x J(\theta, x, y))

Source: I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
examples", ICLR 2015, section 4, https://arxiv.org/abs/1412.6572.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FGSM(DirectionAttack):
    """Steps by epsilon along the sign of the training loss's gradient, in its exact form.

    In float32 a softmax near 1 rounds to 1, and the ordinary gradient loses its largest term or all
    of them.  The direction used here is equal in exact arithmetic and keeps every term
    (`gibbon.models.outputs.OutputRule.ascent`); `FGSMNaive` uses the ordinary gradient.
    """

    def direction(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Tensor:
        """Returns the sign of the gradient: one forward and one backward pass."""
        rule = classifier.outputs
        _, gradient = classifier.ascend(inputs, lambda outputs: rule.ascent(outputs, labels))
        return gradient.sign()
