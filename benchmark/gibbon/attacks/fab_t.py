"""The targeted fast adaptive boundary attack, as in AutoAttack.

One run for each of the likeliest other classes, which approaches the boundary to that class only; a
point counts if the model assigns it any wrong class.  See `gibbon.attacks.fab` for the algorithm.

Sources: F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044; the same, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020, section 6,
https://arxiv.org/abs/2003.01690.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Count, Length
from gibbon.attacks.fab import BoundaryWalk, FABRun
from gibbon.attacks.toolkit.linear_boundary import rivals_of
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import ThreatModel


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FABT(BoundaryWalk):
    """Moves along the decision boundary to one likely wrong class after another.

    Each step costs one backward pass, whatever the number of classes.  With fewer than
    ``target_classes`` wrong classes all of them are targets.  Examples without gradients are
    treated as by `fab`.

    Args:
        steps: steps of one run.
        restarts: runs for each target; the first starts at the input, the others at random points.
        target_classes: number of target classes, the likeliest at the input.
        alpha_max: the largest share of the step that starts from the input.
        eta: the factor by which steps overshoot the boundary.
        beta: the share of a perturbation that is left after a step back.
        enough: an example leaves the search once a point within this distance is found, in the
            units of the input: for the error at a single epsilon.
    """

    version: ClassVar[int] = 2

    steps: Count = 100
    restarts: Count = 1
    target_classes: Count = 9
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1)] = 1.05
    beta: Annotated[float, Field(ge=0, le=1)] = 0.9
    enough: Length = 0.0

    def for_one(self, threat: ThreatModel) -> FABT:
        """Returns the attack with ``enough`` raised to epsilon."""
        return replace(self, enough=max(self.enough, threat.radius))

    def runs(self, outputs: Tensor, labels: Tensor, streams: ExampleStreams) -> Iterator[FABRun]:
        """Yields one likely class after another, a run for each."""
        rivals = rivals_of(outputs, labels, count=self.target_classes)
        for number, each in enumerate(torch.split(rivals, 1, dim=1)):
            yield FABRun(each, streams.child(number))
