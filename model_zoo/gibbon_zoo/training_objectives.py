r"""Training objectives: the loss on clean inputs, and on inputs that an adversary has perturbed.

.. math::
    \tilde J(\theta, x, y) = \alpha J(\theta, x, y) + (1 - \alpha) J(\theta, \tilde x, y)

- adversarial: :math:`\tilde x = x + \epsilon \operatorname{sign} \nabla_x J`, a constant to the
  gradient, since the sign's derivative is zero; or perturbed units of the hidden layers;
- rotation: x rotated towards its gradient, through which the gradient is taken;
- worst case: the closed form for a linear model.

Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015, sections 5 and 6; https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gibbon.attacks.rotation import rotate
from gibbon.core.errors import ModelError, SpecError
from gibbon.core.rng import derive_key
from gibbon_zoo.architecture import Architecture, Masks, Shifts
from gibbon_zoo.recipe import (
    AdversarialObjective,
    Arithmetic,
    Noise,
    Recipe,
    RotationObjective,
    WorstCaseObjective,
)


def descend(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    masks: Masks,
    perturbed_masks: Masks | None = None,
) -> Tensor:
    """Adds the gradient of the batch's mean objective to the parameters' and returns its value.

    Args:
        module: network whose parameters receive the gradient.
        recipe: selects the objective.
        inputs: float32, shape (N, ...), with the recipe's noise, if any, added.
        labels: int64, shape (N,).
        masks: dropout masks, used by all terms.
        perturbed_masks: those of the perturbed term of the adversarial objective, if not these.

    Raises `ModelError` if the loss does not depend on the perturbed units.
    """
    network = _Network(module, recipe.arithmetic, labels, masks)
    # The passes of a step share the conversions of the parameters to bfloat16: autocast keeps them
    # until its outermost block ends.  None of the passes runs under no_grad, whose conversions
    # have no gradient.
    with torch.autocast(inputs.device.type, enabled=False):
        if recipe.adversarial is not None:
            second = network if perturbed_masks is None else replace(network, masks=perturbed_masks)
            value = _adversarial(network, second, recipe.adversarial, inputs)
        elif recipe.rotation is not None:
            value = _rotated(network, recipe.rotation, inputs)
        elif recipe.worst_case is not None:
            value = _worst_case(network, recipe.worst_case, inputs)
        else:
            value = _descended(network.loss(network.outputs(inputs)))
    for name, coefficient in recipe.l1_decay.items():
        value = value + _descended(coefficient * module.get_parameter(name).abs().sum())
    return value


def objective_value(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    masks: Masks,
    perturbed_masks: Masks | None = None,
) -> Tensor:
    """Returns the batch's mean objective, and leaves the parameters' gradients alone.

    Arguments and errors are those of `descend`.
    """
    parameters = [each for each in module.parameters() if each.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        return descend(
            module,
            recipe,
            inputs=inputs,
            labels=labels,
            masks=masks,
            perturbed_masks=perturbed_masks,
        )
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def draw_noise(inputs: Tensor, noise: Noise, *, seed: int, step: int) -> Tensor:
    """Returns the noise that a step adds to its inputs, of their shape and on their device."""
    generator = torch.Generator().manual_seed(derive_key(seed, "noise", step))
    drawn = torch.rand(inputs.shape, generator=generator).mul_(2).sub_(1)
    if noise.kind == "sign":
        drawn = torch.where(drawn < 0, -1.0, 1.0)
    return drawn.mul_(float(noise.epsilon)).to(inputs.device)


def worst_case_outputs(
    outputs: Tensor, weights: Tensor, *, labels: Tensor, epsilon: float
) -> Tensor:
    r"""Returns a linear model's logits at the worst point within epsilon in L-infinity.

    .. math:: \tilde z_k = z_k + \epsilon \lVert w_k - w_y \rVert_1

    Between two classes that is exact, and with labels :math:`t = \pm 1` and the score z of the
    second class over the first the cross-entropy of it is
    :math:`\zeta(\epsilon \lVert w \rVert_1 - t z)`.  The paper prints
    :math:`\zeta(t (\epsilon \lVert w \rVert_1 - z))`, which is equal for t = 1, but for t = -1
    moves the input in the model's favour; its text derives the formula used here.
    For more than two classes it is a bound: one point can't be the worst for every class.

    Args:
        outputs: logits, shape (N, K).
        weights: shape (K, D).
        labels: int64, shape (N,).
        epsilon: not negative.

    >>> weights = torch.tensor([[0.0, 0.0], [3.0, -1.0]])
    >>> worst_case_outputs(torch.tensor([[0.0, 2.0]]), weights, labels=torch.tensor([1]),
    ...                    epsilon=0.5)
    tensor([[2., 2.]])
    """
    return outputs + epsilon * (weights - weights[labels].unsqueeze(1)).abs().sum(2)


@dataclass(frozen=True)
class _Network:
    """A module whose passes are computed in a recipe's arithmetic, on one batch's labels.

    All terms use one set of dropout masks, unless a recipe gives the perturbed term its own: then
    the network is another one than that which the perturbation was made for.
    """

    module: Architecture
    arithmetic: Arithmetic
    labels: Tensor
    masks: Masks

    def outputs(self, inputs: Tensor, shifts: Shifts = ()) -> Tensor:
        # A backward pass computes each operation in the type that its forward pass had.
        with torch.autocast(
            inputs.device.type, dtype=torch.bfloat16, enabled=self.arithmetic == "bfloat16"
        ):
            outputs: Tensor = self.module(inputs, self.masks, shifts)
        return outputs.float() if self.arithmetic == "bfloat16" else outputs

    def loss(self, outputs: Tensor) -> Tensor:
        return self.module.outputs.loss(outputs, self.labels).mean()


def _descended(value: Tensor) -> Tensor:
    if value.requires_grad:  # not if the value alone is wanted, of an objective without adversary
        torch.autograd.backward(value)
    return value.detach()


def _adversarial(
    network: _Network, second: _Network, objective: AdversarialObjective, inputs: Tensor
) -> Tensor:
    # Shifts of zero are leaves whose gradients are those of the units that they are added to.  One
    # backward pass gives the clean term's share of the gradient and the direction for the
    # adversarial term.
    hidden = objective.perturbs == "hidden"
    leaves = [
        inputs.new_zeros(len(inputs), width).requires_grad_() if (layer > 0) == hidden else None
        for layer, width in enumerate(network.module.layer_widths)
    ]
    clean = _descended(objective.alpha * network.loss(network.outputs(inputs, leaves)))
    epsilon = float(objective.epsilon)
    shifts = [None if leaf is None else epsilon * _gradient(leaf).sign() for leaf in leaves]
    attacked = second.loss(second.outputs(inputs, shifts))
    return clean + _descended((1 - objective.alpha) * attacked)


def _rotated(network: _Network, objective: RotationObjective, inputs: Tensor) -> Tensor:
    leaf = inputs.detach().requires_grad_()
    outputs = network.outputs(leaf)
    # The gradient of the usual form of the loss rounds to zero if the model is confident.
    exact = network.module.outputs.exact_loss(outputs, network.labels).sum()
    (towards,) = torch.autograd.grad(exact, leaf, create_graph=True)
    twins = rotate(inputs, towards, chord=objective.chord)
    clean = objective.alpha * network.loss(outputs)
    attacked = network.loss(network.outputs(twins))
    return _descended(clean + (1 - objective.alpha) * attacked)


def _worst_case(network: _Network, objective: WorstCaseObjective, inputs: Tensor) -> Tensor:
    weights = network.module.linear_weights()
    if weights is None:
        raise SpecError("the closed form is of linear models", where="recipe: worst_case")
    epsilon = float(objective.epsilon)
    clean = network.outputs(inputs)
    outputs = worst_case_outputs(clean, weights, labels=network.labels, epsilon=epsilon)
    return _descended(network.loss(outputs))


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise ModelError("the loss does not depend on the units to perturb")
    return leaf.grad
