r"""Rotation of an input by a small angle towards the gradient.

.. math::
    x' = \cos\theta \, x + \sin\theta \, \lVert x \rVert_2 \, u, \qquad
    u = \frac{g - (g \cdot x) x / \lVert x \rVert_2^2}
             {\lVert g - (g \cdot x) x / \lVert x \rVert_2^2 \rVert_2}, \qquad
    g = \nabla_x J(\theta, x, y)

Goodfellow et al. state that rotating x by a small angle in the direction of the gradient reliably
produces adversarial examples, without a definition.  Here the rotation is in the plane of x and g
about the origin, which keeps the length of x, and epsilon is the Euclidean distance moved: the
chord :math:`\epsilon = 2 \lVert x \rVert_2 \sin(\theta / 2)`.  It ends at the latest at the
direction of g.  Clipping to the box shortens the distance, and changes the length.

Source: I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
examples", ICLR 2015, section 4, https://arxiv.org/abs/1412.6572.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from gibbon.attacks.base import STRICT, Attack, SearchMethod
from gibbon.attacks.toolkit.gradients import Gradients
from gibbon.attacks.toolkit.objectives import CrossEntropy
from gibbon.attacks.toolkit.projections import TINY, lengths
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.metrics.distances import clip_
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rotation(Attack):
    """Rotates the input towards the gradient of the training loss, in its exact form.

    One forward and one backward pass.  An input of zeros, or one along its own gradient, has no
    rotation and does not move.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    search_method: ClassVar[SearchMethod] = SearchMethod.SINGLE_STEP

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate."""
        gradients = Gradients(classifier)
        _, gradient = gradients.at(inputs, CrossEntropy(labels, classifier.outputs).ascent)
        gradients.check()
        yield clip_(rotate(inputs, gradient, chord=threat.radius), threat.bounds)


def rotate(points: Tensor, towards: Tensor, *, chord: float) -> Tensor:
    """Returns points rotated towards directions by a given Euclidean distance; lengths are kept.

    Args:
        points: shape (N, *input_shape).
        towards: of the same shape.
        chord: the distance, not negative; shorter if the direction itself is nearer.

    >>> rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), chord=1.0)
    tensor([[0.5000, 0.8660]])
    """
    size = lengths(points)
    along = points / size.clamp(min=TINY)
    steepest = towards / lengths(towards).clamp(min=TINY)
    between = (steepest * along).flatten(1).sum(1).view_as(size)  # the cosine of their angle
    across = steepest - between * along
    rest = lengths(across)
    # The rest of a gradient along x is rounding, and no direction.
    rotates = (rest > PARALLEL) & (size > 0)
    # With half the angle, the change keeps its digits: cos θ - 1 = -2 sin² (θ / 2).
    sine = torch.minimum(chord / (2 * size.clamp(min=TINY)), ((1 - between) / 2).clamp(0, 1).sqrt())
    cosine = (1 - sine.square()).sqrt()
    change = 2 * sine * (cosine * across / rest.clamp(min=TINY) - sine * along) * size
    return points + torch.where(rotates, change, 0.0)


PARALLEL = 1e-6
