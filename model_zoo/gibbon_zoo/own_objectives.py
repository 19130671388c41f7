r"""Objectives for a user's own model: the loss on clean or on adversarial examples.

- ``standard``: :math:`J(\theta, x, y)`;
- ``pgd``: :math:`J(\theta, x', y)`, with x' from projected gradient ascent on the loss, from a
  random point of the ball: A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards deep
  learning models resistant to adversarial attacks", ICLR 2018, section 2,
  https://arxiv.org/abs/1706.06083;
- ``fgsm``: the same with one step of 1.25 epsilon: E. Wong, L. Rice and J. Z. Kolter, "Fast is
  better than free: revisiting adversarial training", ICLR 2020, algorithm 3,
  https://arxiv.org/abs/2001.03994;
- ``trades``: :math:`J(\theta, x, y) + \beta\, \mathrm{KL}(f(x) \,\|\, f(x'))`, with x' from
  gradient ascent on the divergence, from :math:`x + 0.001\,\mathcal{N}(0, I)`: H. Zhang, Y. Yu,
  J. Jiao, E. P. Xing, L. El Ghaoui and M. I. Jordan, "Theoretically principled trade-off between
  robustness and accuracy", ICML 2019, algorithm 1, https://arxiv.org/abs/1901.08573;
- ``free``: each batch is trained on several times in succession, and each backward pass updates
  both the parameters and the perturbation, which later batches start from: A. Shafahi et al.,
  "Adversarial training for free!", NeurIPS 2019, algorithm 1, https://arxiv.org/abs/1904.12843.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from gibbon.attacks.toolkit.projections import Region, region
from gibbon.core.rng import ExampleStreams, derive_key
from gibbon.core.threat import ZERO, Norm, ThreatModel
from gibbon_zoo.own_recipe import Augmentation, OwnObjective
from gibbon_zoo.trained_network import TrainedNetwork

TRADES_START = 0.001  # standard deviation of the noise that the ascent starts from

Values = Callable[[Tensor], Tensor]  # points -> one value for each, shape (N,)


def objective_threat(network: TrainedNetwork, objective: OwnObjective) -> ThreatModel:
    """Returns the threat model of an objective: its budget, inside of the network's bounds."""
    return ThreatModel(Norm(objective.norm), objective.epsilon or ZERO, network.bounds)


def ascend(
    values: Values, start: Tensor, allowed: Region, *, steps: int, step_size: float
) -> Tensor:
    """Returns the points after steps of projected gradient ascent.

    Args:
        values: returns the value of each point that is to rise.
        start: allowed points, shape (N, ...).
        allowed: region that points are projected onto after each step.
        steps: number of steps.
        step_size: length of each step in the region's norm.
    """
    points = start
    for _ in range(steps):
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(values(leaf).sum(), leaf)
        points = allowed.project(points.detach() + step_size * allowed.unit(gradient))
    return points.detach()


def adversarial_loss(
    network: TrainedNetwork, objective: OwnObjective, inputs: Tensor, labels: Tensor, *, key: int
) -> Tensor:
    """Returns a batch's mean objective, with its graph.

    The network's mode is that of the update.  With ``adversary_mode = "eval"`` the passes that make
    the perturbation are made in evaluation mode.

    Args:
        network: the network.
        objective: any but ``free``, for which the loss is that of ``fgsm``.
        inputs: shape (N, ...), in the network's bounds.
        labels: int64, shape (N,).
        key: of the random numbers.
    """
    if objective.name == "standard":
        return network.losses(network.outputs(inputs), labels).mean()
    allowed = region(inputs, threat=objective_threat(network, objective))
    streams = ExampleStreams.derive(key, torch.arange(len(inputs), device=inputs.device))
    crafting = network.evaluating() if objective.adversary_mode == "eval" else nullcontext()
    steps, step_size = objective.steps_taken, objective.step_length
    if objective.name == "trades":
        with crafting:
            with torch.no_grad():
                clean = _log_probabilities(network, network.outputs(inputs))
            noise = streams.normal(inputs.shape[1:]).mul_(TRADES_START)
            points = ascend(
                lambda x: _divergence(clean, _log_probabilities(network, network.outputs(x))),
                allowed.project(inputs + noise),
                allowed,
                steps=steps,
                step_size=step_size,
            )
        outputs = network.outputs(inputs)
        apart = _divergence(
            _log_probabilities(network, outputs),
            _log_probabilities(network, network.outputs(points)),
        )
        return network.losses(outputs, labels).mean() + objective.weight * apart.mean()
    with crafting:
        points = ascend(
            lambda x: network.losses(network.outputs(x), labels),
            allowed.random_point(streams) if objective.random_start else inputs,
            allowed,
            steps=steps,
            step_size=step_size,
        )
    attacked = network.losses(network.outputs(points), labels).mean()
    if objective.alpha == 0:
        return attacked
    clean_loss = network.losses(network.outputs(inputs), labels).mean()
    return objective.alpha * clean_loss + (1 - objective.alpha) * attacked


def replay(
    network: TrainedNetwork,
    objective: OwnObjective,
    inputs: Tensor,
    labels: Tensor,
    *,
    perturbation: Tensor,
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of one step of ``free``; returns the mean loss and the new perturbation.

    Args:
        network: in training mode.
        objective: gives the budget.
        inputs: shape (N, ...).
        labels: int64, shape (N,).
        perturbation: shape (M, ...), M at least N: the first N are used and updated.
    """
    threat = objective_threat(network, objective)
    allowed, count = region(inputs, threat=threat), len(inputs)
    leaf = allowed.project(inputs + perturbation[:count]).requires_grad_()
    loss = network.losses(network.outputs(leaf), labels).mean()
    torch.autograd.backward(loss)
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    # The perturbation stays in the ball alone: the box is that of the next batch's inputs.
    ball = region(torch.zeros_like(inputs), threat=ThreatModel(threat.norm, threat.epsilon, None))
    moved = ball.project(perturbation[:count] + threat.radius * allowed.unit(gradient))
    return loss.detach(), torch.cat((moved, perturbation[count:])).detach()


def augment(inputs: Tensor, augmentation: Augmentation, *, key: int, low: float) -> Tensor:
    """Returns randomly changed pictures.

    Args:
        inputs: shape (N, C, H, W).
        augmentation: changes to make.
        key: of the random numbers.
        low: value of pixels that come in.
    """
    count = len(inputs)
    generator = torch.Generator().manual_seed(derive_key(key, "augmentation"))
    if augmentation.flip:
        flipped = torch.rand(count, generator=generator) < 0.5
        mask = flipped.view(-1, 1, 1, 1).to(inputs.device)
        inputs = torch.where(mask, inputs.flip(3), inputs)
    if augmentation.shift:
        room, (height, width) = augmentation.shift, inputs.shape[2:]
        padded = functional.pad(inputs, (room, room, room, room), value=low)
        corners = torch.randint(0, 2 * room + 1, (2, count), generator=generator).to(inputs.device)
        rows = corners[0].view(-1, 1) + torch.arange(height, device=inputs.device)
        columns = corners[1].view(-1, 1) + torch.arange(width, device=inputs.device)
        picture = torch.arange(count, device=inputs.device).view(-1, 1, 1)
        moved = padded.permute(0, 2, 3, 1)[picture, rows.unsqueeze(2), columns.unsqueeze(1)]
        inputs = moved.permute(0, 3, 1, 2).contiguous()
    return inputs


def _log_probabilities(network: TrainedNetwork, outputs: Tensor) -> Tensor:
    return functional.log_softmax(network.rule.as_logits(outputs), dim=1)


def _divergence(clean: Tensor, other: Tensor) -> Tensor:
    """Returns KL(clean || other) of log-probabilities, shape (N,)."""
    return functional.kl_div(other, clean, reduction="none", log_target=True).sum(1)
