"""Uniform noise: a control that perturbs inputs by epsilon without a gradient.

Source: Goodfellow et al. 2015, section 6, trains on U(-epsilon, epsilon) noise as a control.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, DirectionAttack, SearchMethod
from gibbon.attacks.noise_sign import CONTROL
from gibbon.core.rng import ExampleStreams
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NoiseUniform(DirectionAttack):
    """Adds noise drawn from U(-epsilon, epsilon) to every coordinate."""

    needs_gradient: ClassVar[bool] = False
    search_method: ClassVar[SearchMethod] = SearchMethod.NOISE
    departures: ClassVar[Mapping[str, str]] = CONTROL

    def direction(
        self, classifier: Classifier, inputs: Tensor, *, labels: Tensor, streams: ExampleStreams
    ) -> Tensor:
        """Returns noise drawn from U(-1, 1); no pass through the model."""
        return streams.uniform(inputs.shape[1:]).mul_(2.0).sub_(1.0)
