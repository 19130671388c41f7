from dataclasses import dataclass

from gibbon.attacks.base import Attack, move
from gibbon.core.threat import Norm


@dataclass(frozen=True)
class FastGradient(Attack):
    """One step along the gradient itself, in L2 (Miyato et al. 2017)."""

    norms = (Norm.L2,)
    step: float = 1.0  # in units of epsilon

    def propose(self, classifier, inputs, *, labels, threat, streams):
        ascent = classifier.outputs.ascent
        _, gradient = classifier.ascend(inputs, lambda outputs: ascent(outputs, labels))
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
        yield move(inputs, self.step * gradient / length.view(-1, 1, 1, 1), threat=threat)
