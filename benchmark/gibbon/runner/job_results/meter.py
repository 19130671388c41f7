"""Measures the passes and the time that an attack takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gibbon.models.classifier import Classifier
from gibbon.models.pass_count import PassCount
from gibbon.records.outcomes import OutcomeMeta


@dataclass(frozen=True)
class Meter:
    """The passes of a classifier and the clock, at one moment."""

    passes: PassCount
    forward: int
    backward: int
    started: float

    @classmethod
    def start(cls, source: Classifier) -> Meter:
        """Returns a meter that starts now."""
        passes = source.passes
        return cls(passes, passes.forward, passes.backward, time.perf_counter())

    def spent(self) -> OutcomeMeta:
        """Returns the passes and the seconds since then."""
        return OutcomeMeta(
            forward_passes=self.passes.forward - self.forward,
            backward_passes=self.passes.backward - self.backward,
            seconds=time.perf_counter() - self.started,
        )
