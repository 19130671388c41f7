"""Sign noise: plus or minus epsilon at every coordinate, with equal probability.

Source: Goodfellow et al. 2015, section 6, trains on such noise as a control.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack, SearchMethod
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier

CONTROL = dict.fromkeys(
    ("larger-budget", "optimum"), "it is a control that does not look for the worst case"
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseSign(DirectionAttack):
    """Adds plus or minus epsilon to every coordinate at random."""

    needs_gradient: ClassVar[bool] = False
    search_method: ClassVar[SearchMethod] = SearchMethod.NOISE
    departures: ClassVar[Mapping[str, str]] = CONTROL

    def direction(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Tensor:
        """Returns random signs; no pass through the model."""
        return streams.signs(inputs.shape[1:])
