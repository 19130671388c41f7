r"""NI-FGSM: momentum whose gradient is taken at the point that the momentum leads to.

.. math::
    x^{nes}_t &= x_t + \alpha \, \mu \, g_t && (6) \\
    g_{t+1} &= \mu \, g_t + \frac{\nabla_x J(x^{nes}_t, y)}{\lVert \nabla_x J \rVert_1} && (7) \\
    x_{t+1} &= \mathrm{clip}(x_t + \alpha \, \mathrm{sign}(g_{t+1})) && (8)

Source: J. Lin, C. Song, K. He, L. Wang and J. E. Hopcroft, "Nesterov accelerated gradient and scale
invariance for adversarial attacks", ICLR 2020, section 3.2, https://arxiv.org/abs/1908.06281.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon import Attack, Classifier, ExampleStreams, Norm, ThreatModel


@dataclass(frozen=True)
class NesterovFGSM(Attack):
    """Takes steps along the sign of Nesterov's momentum.

    Args:
        steps: number of steps, T; each is ε / T long.
        decay: of the momentum, μ.
    """

    norms = (Norm.LINF,)
    steps: int = 10
    decay: float = 1.0

    def propose(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        labels: Tensor,
        threat: ThreatModel,
        streams: ExampleStreams,
    ) -> Iterator[Tensor]:
        """Yields the one candidate; it stays within the budget, and in the box if there is one."""
        step = threat.radius / self.steps
        low, high = inputs - threat.radius, inputs + threat.radius
        if threat.bounds is not None:
            low = low.clamp(threat.bounds.low, threat.bounds.high)
            high = high.clamp(threat.bounds.low, threat.bounds.high)
        point, momentum = inputs, torch.zeros_like(inputs)
        for _ in range(self.steps):
            gradient = classifier.loss_gradient(point + step * self.decay * momentum, labels)
            size = gradient.abs().flatten(1).sum(1).clamp_min(1e-12)
            momentum = self.decay * momentum + gradient / size.view(-1, *[1] * (inputs.ndim - 1))
            point = torch.minimum(torch.maximum(point + step * momentum.sign(), low), high)
        yield point
