"""Figures of a user's network: clean, under FGSM and under PGD, and catastrophic overfitting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from gibbon.attacks.toolkit.projections import region
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import ThreatModel
from gibbon.metrics.intervals import wilson_interval
from gibbon.specs.base import Spec
from gibbon_zoo.learner import ExampleFeed
from gibbon_zoo.own_objectives import Values, ascend
from gibbon_zoo.own_recipe import STEP_SHARE
from gibbon_zoo.trained_network import TrainedNetwork

# PGD above FGSM by so much, on so many examples at least, is not the usual difference of the two:
# it is about 10 points for the CIFAR-10 network of Madry et al. 2018.
OVERFITTED_GAP = 0.2
OVERFITTED_EXAMPLES = 5


class OwnFigures(Spec):
    """Measured figures, fractions of 1; None if they were not measured, or of no example.

    Args:
        examples: number of examples.
        loss: mean loss, unattacked.
        clean_error: share misclassified unattacked.
        clean_confidence: mean confidence on all of them.
        fgsm_error: share misclassified after one step of epsilon from the example.
        fgsm_confidence: mean confidence on these.
        pgd_error: share misclassified after PGD from a random point.
        pgd_confidence: mean confidence on these.
        pgd_steps: number of its steps, each of 2.5 epsilon / steps.
        guess_error: share misclassified by the answer that is right most often.
    """

    examples: int
    loss: float
    clean_error: float
    clean_confidence: float
    fgsm_error: float | None = None
    fgsm_confidence: float | None = None
    pgd_error: float | None = None
    pgd_confidence: float | None = None
    pgd_steps: int | None = None
    guess_error: float | None = None

    def interval(self, error: float) -> tuple[float, float]:
        """Returns the ends of the Wilson 95 % interval of an error."""
        found = wilson_interval(round(error * self.examples), self.examples)
        return found.low, found.high


def measure_network(
    network: TrainedNetwork,
    examples: ExampleFeed,
    threat: ThreatModel,
    *,
    steps: int,
    batch_size: int,
) -> OwnFigures:
    """Returns a network's figures on examples; nothing in it is changed.

    The attacks climb the loss along a direction that does not round to zero, however sure the
    network is.

    Args:
        network: measured in evaluation mode, in float32.
        examples: at least one.
        threat: budget of FGSM and PGD; with an epsilon of 0 clean figures alone are measured.
        steps: gradient steps of PGD.
        batch_size: examples a pass.
    """
    attacked = threat.radius > 0
    clean, fgsm, pgd = _Tally(), _Tally(), _Tally()
    network = TrainedNetwork(network.whole, network.module, network.rule, network.bounds)
    rule, first = network.rule, 0
    counts: Counter[int] = Counter()
    with network.evaluating():
        for inputs, labels in examples.in_order(batch_size):
            with torch.no_grad():
                outputs = network.outputs(inputs)
            counts.update(labels.tolist())
            clean.add(network, outputs, labels)
            if attacked:
                allowed = region(inputs, threat=threat)
                ids = torch.arange(first, first + len(inputs), device=inputs.device)
                start = ExampleStreams.derive(derive_key("measured"), ids)

                def heights(points: Tensor, labels: Tensor = labels) -> Tensor:
                    outputs = network.outputs(points)
                    direction = rule.ascent(outputs.detach(), labels)
                    return (outputs * direction).sum(1)  # its gradient climbs the loss

                values: Values = heights
                step = STEP_SHARE * threat.radius / steps
                near = ascend(values, inputs, allowed, steps=1, step_size=threat.radius)
                random = allowed.random_point(start)
                far = ascend(values, random, allowed, steps=steps, step_size=step)
                with torch.no_grad():
                    fgsm.add(network, network.outputs(near), labels)
                    pgd.add(network, network.outputs(far), labels)
            first += len(inputs)
    return OwnFigures(
        examples=first,
        loss=clean.loss / first,
        clean_error=clean.wrong / first,
        clean_confidence=clean.confidence / first,
        fgsm_error=fgsm.wrong / first if attacked else None,
        fgsm_confidence=fgsm.on_wrong,
        pgd_error=pgd.wrong / first if attacked else None,
        pgd_confidence=pgd.on_wrong,
        pgd_steps=steps if attacked else None,
        guess_error=1 - max(counts.values()) / first,
    )


def overfitting_note(figures: OwnFigures, *, on: str = "validation") -> str:
    """Returns a sentence if PGD finds far more errors than FGSM, else an empty text.

    Training with one gradient step may end in a network that resists that step alone, within one
    epoch: Wong, Rice and Kolter 2020, section 5.4 (catastrophic overfitting); M. Andriushchenko and
    N. Flammarion, "Understanding and improving fast adversarial training", NeurIPS 2020,
    https://arxiv.org/abs/2007.02617.
    """
    fgsm, pgd = figures.fgsm_error, figures.pgd_error
    if fgsm is None or pgd is None or pgd - fgsm < OVERFITTED_GAP:
        return ""
    if (pgd - fgsm) * figures.examples < OVERFITTED_EXAMPLES:
        return ""
    return (
        f"catastrophic overfitting: the error on {on} is {100 * pgd:.1f} % under PGD against "
        f"{100 * fgsm:.1f} % under FGSM, so that the network resists one step alone; "
        "train with pgd, or with a smaller step size"
    )


def guessing_note(figures: OwnFigures, *, on: str) -> str:
    """Returns a sentence if the clean error is no lower than that of one answer to everything."""
    guess = figures.guess_error
    if not guess or figures.clean_error < guess:
        return ""
    return (
        f"the clean error on {on}, {100 * figures.clean_error:.1f} %, is no lower than that of "
        f"one answer to everything, {100 * guess:.1f} %: the network only guesses; train it for "
        "longer, or with a smaller epsilon or learning rate"
    )


@dataclass
class _Tally:
    """Sums over examples."""

    loss: float = 0.0
    wrong: int = 0
    confidence: float = 0.0
    confidence_wrong: float = 0.0

    def add(self, network: TrainedNetwork, outputs: Tensor, labels: Tensor) -> None:
        wrong = outputs.argmax(1) != labels
        confidence = network.rule.confidence(outputs).double()
        self.loss += float(network.rule.loss(outputs, labels).double().sum())
        self.wrong += int(wrong.sum())
        self.confidence += float(confidence.sum())
        self.confidence_wrong += float(confidence[wrong].sum())

    @property
    def on_wrong(self) -> float | None:
        """The mean confidence on misclassified examples; None if there are none."""
        return self.confidence_wrong / self.wrong if self.wrong else None
