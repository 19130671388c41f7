r"""Optimisers of the training loop, with a learning rate and a momentum that change by step.

SGD's momentum is the classical one, whose velocity contains the learning rate of its time:

.. math:: v_t = \mu_t\, v_{t-1} - \eta_t\, g_t, \qquad \theta_t = \theta_{t-1} + v_t

torch keeps :math:`b_t = -v_t / \eta_t` instead, :math:`b_t = m\,b_{t-1} + g_t`, which is equal for
:math:`m = \mu_t\,\eta_{t-1} / \eta_t`: the momentum that `set_schedules` gives it.

Source of the classical form: Sutskever, Martens, Dahl and Hinton, "On the importance of
initialization and momentum in deep learning", ICML 2013, equations 1 and 2.
"""

from __future__ import annotations

import torch
from torch import nn

from gibbon_zoo.recipe import Optimiser
from gibbon_zoo.schedules import Position, learning_rate, momentum

# torch drops the velocity of steps without momentum; this keeps it and adds nothing.
NO_MOMENTUM = 1e-30


def make_optimiser(module: nn.Module, recipe: Optimiser) -> torch.optim.Optimizer:
    """Returns the optimiser of a module's parameters, one group for each learning rate."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        by_rate.setdefault(recipe.rates.get(name, recipe.learning_rate), []).append(parameter)
    groups = [
        {"params": parameters, "lr": rate, "first_lr": rate} for rate, parameters in by_rate.items()
    ]
    # The fused forms update a parameter in one pass over memory.
    if recipe.name == "adam":
        decay = recipe.weight_decay
        return torch.optim.Adam(groups, lr=recipe.learning_rate, weight_decay=decay, fused=True)
    with_momentum = recipe.momentum > 0 or recipe.momentum_ramp is not None
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum or (NO_MOMENTUM if with_momentum else 0.0),
        weight_decay=recipe.weight_decay,
        fused=with_momentum,
    )


def set_schedules(
    optimiser: torch.optim.Optimizer,
    recipe: Optimiser,
    *,
    now: Position,
    before: Position | None,
    momentum_epoch: int,
) -> None:
    """Sets the learning rates and the momentum of a step.

    Args:
        optimiser: made by `make_optimiser` for this recipe.
        recipe: holds the schedules.
        now: position of the step.
        before: position of the step before it, whose rate the velocity contains; None at the first.
        momentum_epoch: epoch of which the momentum is taken.
    """
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(recipe, now, base=group["first_lr"])
        if group.get("momentum", 0.0) > 0:
            earlier = now if before is None else before
            change = learning_rate(recipe, earlier, base=group["first_lr"]) / group["lr"]
            group["momentum"] = max(momentum(recipe, epoch=momentum_epoch) * change, NO_MOMENTUM)
