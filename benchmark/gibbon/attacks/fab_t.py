"""The fast adaptive boundary attack, targeted, as AutoAttack has it.

One run for each of the likeliest other classes, in which the boundary to that class alone is looked
at; a point counts whatever wrong class it is given.  See `gibbon.attacks.toolkit.fab_search` for the
algorithm.

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

from gibbon.attacks.base import STRICT, Length
from gibbon.attacks.minimal import MinimalNormAttack
from gibbon.attacks.toolkit.fab_search import Walk
from gibbon.attacks.toolkit.linear_boundary import rivals_of
from gibbon.attacks.toolkit.minimal_search import Aim, Nearest
from gibbon.attacks.toolkit.parallel_restarts import abreast
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Bounds, Norm, ThreatModel
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FABT(MinimalNormAttack):
    """Walks along the boundary to one rival class after another.

    Each step costs one backward pass, however many classes there are.  With fewer than
    ``target_classes`` rivals all of them are targets.  Examples without gradients are treated as by
    `fab`.

    Args:
        steps: steps of one run.
        restarts: runs for each target; the first starts at the input, the others at random points.
        target_classes: how many classes are targets, the likeliest at the input.
        alpha_max: the largest share of the step that is taken from the input.
        eta: by which factor steps overshoot the boundary.
        beta: what is left of a perturbation after a step back.
        enough: an example with a point found within this distance, in the units of the input, is
            not walked with any further: for one who asks at one epsilon alone.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    version: ClassVar[int] = 2

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    target_classes: Annotated[int, Field(ge=1)] = 9
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1)] = 1.05
    beta: Annotated[float, Field(ge=0, le=1)] = 0.9
    enough: Length = 0.0

    def for_one(self, threat: ThreatModel) -> FABT:
        """Returns the same, content with any point in the budget."""
        return replace(self, enough=max(self.enough, threat.radius))

    def nearest(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        norm: Norm,
        bounds: Bounds | None,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one try, the nearest over all targets and runs."""
        nearest = Nearest(inputs, norm=norm)
        with torch.no_grad():
            outputs = classifier(inputs)
        nearest.offer(inputs, Aim(labels).reached(outputs))
        left = nearest.missing
        rivals = rivals_of(outputs, labels, count=self.target_classes)
        walk = Walk(classifier, bounds, self.steps, self.alpha_max, self.eta, self.beta)
        targets = iter(range(rivals.shape[1]))
        while len(left) and (group := abreast(targets, classifier, examples=len(left))):
            found = walk.runs(
                torch.cat([inputs[left]] * len(group)),
                labels=labels[left].repeat(len(group)),
                rivals=torch.cat([rivals[left, target] for target in group]).unsqueeze(1),
                norm=norm,
                restarts=self.restarts,
                streams=ExampleStreams(
                    torch.cat([streams.child(target).take(left).keys for target in group])
                ),
                examples=len(left),
                enough=self.enough,
            )
            tried = torch.ones_like(left, dtype=torch.bool)  # not near enough by an earlier target
            for points, away in zip(
                found.points.chunk(len(group)), found.distances.chunk(len(group)), strict=True
            ):
                nearest.offer(points, tried & torch.isfinite(away), rows=left)
                tried &= away > self.enough
            left = left[tried]
        walk.search(nearest, labels=labels, beyond=self.enough)
        yield nearest.points
