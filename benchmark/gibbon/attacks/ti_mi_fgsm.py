r"""Translation-invariant momentum iterative FGSM, for transfer.

.. math::
    d_t &= W * \nabla_x J(x_t, y) \\
    g_{t+1} &= \mu \, g_t + d_t / \lVert d_t \rVert_1 \\
    x_{t+1} &= \mathrm{Clip}_{x, \epsilon}(x_t + \alpha \, \mathrm{sign}(g_{t+1}))

with W a Gaussian kernel of :math:`(2k + 1) \times (2k + 1)` pixels whose entries sum to 1: the
gradient of the loss averaged over pictures shifted by up to k pixels, under the approximation that
shifting a picture shifts its gradient.

Source: Y. Dong, T. Pang, H. Su and J. Zhu, "Evading defenses to transferable adversarial examples
by translation-invariant attacks", CVPR 2019, section 3, https://arxiv.org/abs/1904.02884.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from gibbon.attacks.base import STRICT, Attack, Count, PositiveLength, SearchMethod
from gibbon.attacks.mi_fgsm import momentum_step
from gibbon.attacks.toolkit.ascent_loop import Ascent, State
from gibbon.attacks.toolkit.image_input import check_pictures
from gibbon.attacks.toolkit.objectives import CrossEntropy
from gibbon.attacks.toolkit.projections import region
from gibbon.core.errors import SpecError
from gibbon.core.rng import ExampleStreams
from gibbon.core.threat import Norm, ThreatModel
from gibbon.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TIMIFGSM(Attack):
    """Takes momentum steps along smoothed gradients.

    Inputs must be pictures of shape (channels, height, width); others raise `AttackError`.

    Args:
        steps: number of steps.
        decay: of the momentum, μ.
        step_size: length of a step in the units of the input; ε / steps if None.
        kernel: width of the kernel in pixels, 2 k + 1, odd; on a smaller picture the largest odd
            width that fits.
        sigma: standard deviation of the kernel in pixels; k / √3 if None, as in the paper.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    search_method: ClassVar[SearchMethod] = SearchMethod.FOR_TRANSFER
    departures: ClassVar[Mapping[str, str]] = {
        "optimum": "it climbs a blurred gradient, for transfer, not the model's own loss"
    }

    steps: Count = 10
    decay: Annotated[float, Field(ge=0)] = 1.0
    step_size: PositiveLength | None = None
    kernel: Count = 15
    sigma: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise SpecError(f"kernel must be an odd number of pixels, got {self.kernel}")

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
        check_pictures(inputs, attack="ti-mi-fgsm")
        step = self.step_size or threat.radius / self.steps
        weights = self._weights(inputs)

        def update(state: State, gradient: Tensor) -> State:
            smoothed = _smoothed(gradient, weights)
            return momentum_step(state, smoothed, decay=self.decay, length=step)

        objective = CrossEntropy(labels, classifier.outputs)
        start = State(inputs, region(inputs, threat=threat), objective)
        return Ascent(update, self.steps, "last").run(classifier, start)

    def _weights(self, pictures: Tensor) -> Tensor:
        """Returns one axis of the kernel, shape (2 k + 1,), which sums to 1."""
        shortest = min(pictures.shape[-2:])
        reach = min(self.kernel, shortest - (shortest + 1) % 2) // 2
        sigma = max(reach, 1) / math.sqrt(3) if self.sigma is None else self.sigma
        offsets = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
        return functional.softmax(-offsets.square_() / (2 * sigma**2), dim=0)


def _smoothed(gradient: Tensor, weights: Tensor) -> Tensor:
    """Returns each channel convolved with the kernel, with zero padding.

    A Gaussian is separable: two passes of 2 k + 1 numbers in place of one of its square.
    """
    channels, reach = gradient.shape[1], len(weights) // 2
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = functional.conv2d(gradient, down, padding=(reach, 0), groups=channels)
    return functional.conv2d(rows, across, padding=(0, reach), groups=channels)
