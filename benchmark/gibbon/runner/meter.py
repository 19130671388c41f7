"""Measures the passes and the time that an attack takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gibbon.models.classifier import Classifier
from gibbon.records.outcomes import OutcomeMeta


@dataclass(frozen=True)
class Meter:
    """The passes of a classifier and the clock, at one moment."""

    source: Classifier
    forward: int
    backward: int
    started: float

    @classmethod
    def start(cls, source: Classifier) -> Meter:
        """Returns a meter that starts now."""
        return cls(source, source.passes.forward, source.passes.backward, time.perf_counter())

    def spent(self) -> OutcomeMeta:
        """Returns the passes and the seconds since then."""
        return OutcomeMeta(
            forward_passes=self.source.passes.forward - self.forward,
            backward_passes=self.source.passes.backward - self.backward,
            seconds=time.perf_counter() - self.started,
        )
