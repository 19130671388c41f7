"""Sign noise: plus or minus epsilon at every coordinate, with equal probability.

Source: Goodfellow et al. 2015, section 6, trains on such noise as a control.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseSign(DirectionAttack):
    """Adds plus or minus epsilon to every coordinate at random."""

    needs_gradient = False

    def direction(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        streams: ExampleStreams,
    ) -> Tensor:
        """Returns random signs; no pass through the model."""
        return streams.signs(inputs.shape[1:])
