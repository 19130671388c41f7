r"""Schedules: the learning rate and the momentum of each step of a training.

- ``schedule = "linear"``: :math:`\eta_t = \eta_0 (1 - t / T)`, over all T steps;
- ``decay``: :math:`\eta_t = \max(\eta_0 / c^t, \eta_{\min})`, with t the updates done so far;
- ``rate_ramp``, ``momentum_ramp``: :math:`v_e = (1 - a)\,v_0 + a\,v_{\text{final}}` in epoch e,
  with :math:`a = (e - \text{start}) / (\text{end} - \text{start})`, clipped to [0, 1].

Source of the decay by update and of the ramp of the momentum: the published training scripts of
Goodfellow, Warde-Farley, Mirza, Courville and Bengio, "Maxout networks", ICML 2013 (its
``ExponentialDecay`` and ``MomentumAdjustor``); https://arxiv.org/abs/1302.4389
"""

from __future__ import annotations

from dataclasses import dataclass

from gibbon_zoo.recipe import Optimiser, Ramp


@dataclass(frozen=True)
class Position:
    """The position of a step in a training.

    Args:
        updates: updates done before this one.
        epoch: number of its epoch, from 1.
        progress: share of the training's steps that are done, in [0, 1).
    """

    updates: int
    epoch: int
    progress: float


def learning_rate(optimiser: Optimiser, position: Position, *, base: float) -> float:
    """Returns the learning rate of a step.

    Args:
        optimiser: holds the schedule.
        position: position of the step.
        base: the rate at the first step: the optimiser's, or that of a single parameter.

    >>> optimiser = Optimiser(name="sgd", learning_rate=0.1, decay={"factor": 1.000004})
    >>> f"{learning_rate(optimiser, Position(121_500, 244, 0.0), base=0.1):.6f}"
    '0.061508'
    """
    if optimiser.schedule == "linear":
        return (1 - position.progress) * base
    if optimiser.decay is not None:
        # A division by factor ** updates would overflow after many updates.
        return max(base * optimiser.decay.factor**-position.updates, optimiser.decay.minimum)
    if optimiser.rate_ramp is not None:
        now = _on_ramp(optimiser.rate_ramp, position.epoch, first=optimiser.learning_rate)
        return base * (now / optimiser.learning_rate)
    return base


def momentum(optimiser: Optimiser, *, epoch: int) -> float:
    """Returns the momentum of every step of an epoch, whose number counts from 1.

    >>> ramp = {"start": 1, "end": 250, "final": 0.7}
    >>> optimiser = Optimiser(name="sgd", learning_rate=0.1, momentum=0.5, momentum_ramp=ramp)
    >>> [round(momentum(optimiser, epoch=epoch), 4) for epoch in (1, 84, 250, 300)]
    [0.5, 0.5667, 0.7, 0.7]
    """
    if optimiser.momentum_ramp is None:
        return optimiser.momentum
    return _on_ramp(optimiser.momentum_ramp, epoch, first=optimiser.momentum)


def _on_ramp(ramp: Ramp, epoch: int, *, first: float) -> float:
    if ramp.end == ramp.start:
        return ramp.final if epoch >= ramp.start else first
    share = min(max((epoch - ramp.start) / (ramp.end - ramp.start), 0.0), 1.0)
    return (1 - share) * first + share * ramp.final
