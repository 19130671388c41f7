"""The loop that trains every model of the zoo.

What is random at a step depends on (seed, step) alone: the order of an epoch's examples on (seed,
epoch), the dropout masks of a step on (seed, step).  A training that was stopped and resumed from
a checkpoint therefore ends with the same weights, bit for bit, as one that was not, on the same
machine with the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmark.errors import ModelError, SpecError
from benchmark.models import TrainingProgress
from benchmark.rng import derive_key
from benchmark.threat import Epsilon
from model_zoo.architecture import Architecture, Masks, constrain_norms, draw_masks
from model_zoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from model_zoo.recipe import Adversarial, Optimiser, Recipe

REPORT_STEPS = 20
CHECKPOINT_SECONDS = 20.0


def fit(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    checkpoint: Path,
    report: Callable[[TrainingProgress], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> float:
    """Trains a module in place and returns the seconds that it took, over all resumptions.

    Goes on from the checkpoint where there is one; leaves the last one written behind.

    Args:
        module: on the device to train on.
        recipe: how.
        inputs: float32, shape (N, ...), on the module's device.
        labels: int64, shape (N,), on the module's device.
        checkpoint: file that is read at the start and written as training goes on.
        report: called every few steps.
        checkpoint_seconds: how much work may be lost to an interruption.

    Raises `SpecError` where the recipe does not fit the architecture, `ModelError` where the loss
    stops being finite, and what `read_checkpoint` and `write_checkpoint` raise.
    """
    _check(module, recipe)
    optimiser = _make_optimiser(module, recipe.optimiser)
    resumed = read_checkpoint(checkpoint, recipe)
    if resumed is None:
        start = torch.Generator().manual_seed(derive_key(recipe.seed, "start"))
        module.start(inputs, labels, spread=recipe.spread, generator=start)
    else:
        module.load_state_dict(resumed.parameters)
        optimiser.load_state_dict(resumed.optimiser)
    step = resumed.step if resumed is not None else 0
    before = resumed.seconds if resumed is not None else 0.0

    count = len(inputs)
    steps_an_epoch = math.ceil(count / recipe.batch_size)
    steps = steps_an_epoch * recipe.epochs
    began = saved = time.monotonic()
    total, terms = torch.zeros((), device=inputs.device), 0
    order = _epoch_order(recipe.seed, step // steps_an_epoch, count)

    with _denormals_flushed():
        while step < steps:
            epoch, position = divmod(step, steps_an_epoch)
            if position == 0:
                order = _epoch_order(recipe.seed, epoch, count)
            rows = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
            rows = rows.to(inputs.device)
            _set_rates(optimiser, recipe.optimiser, step / steps)
            optimiser.zero_grad(set_to_none=True)
            masks = _step_masks(module, recipe, step, len(rows), inputs.device)
            loss = _descend(module, inputs[rows], labels[rows], masks, recipe.adversarial)
            optimiser.step()
            if recipe.max_norm is not None:
                constrain_norms(module.unit_weights(), recipe.max_norm)
            step += 1

            total, terms = total + loss, terms + 1
            if step % REPORT_STEPS == 0 or step == steps:
                mean = float(total) / terms
                if not math.isfinite(mean):
                    raise ModelError(
                        f"training diverged: the loss was {mean} in epoch {epoch + 1} of "
                        f"{recipe.epochs}; try a lower learning rate"
                    )
                epochs_done = step // steps_an_epoch
                report(TrainingProgress(step, steps, epochs_done, recipe.epochs, mean))
                total, terms = torch.zeros_like(total), 0
            now = time.monotonic()
            if now - saved >= checkpoint_seconds or step == steps:
                seconds = before + now - began
                state = Checkpoint(step, seconds, module.state_dict(), optimiser.state_dict())
                write_checkpoint(checkpoint, state, recipe)
                saved = time.monotonic()
    return before + time.monotonic() - began


def _descend(
    module: Architecture,
    inputs: Tensor,
    labels: Tensor,
    masks: Masks,
    adversarial: Adversarial | None,
) -> Tensor:
    """Adds the gradient of the batch's mean loss to the parameters' and returns that loss."""
    if adversarial is None:
        loss = module.outputs.loss(module(inputs, masks), labels).mean()
        torch.autograd.backward(loss)
        return loss.detach()
    # One backward pass gives the clean term's share of the gradient and the direction that the
    # adversarial term needs.  Both terms see the same network: with fresh dropout masks for the
    # second, the attack misses the network that it is made for.
    leaf = inputs.detach().requires_grad_()
    clean = adversarial.alpha * module.outputs.loss(module(leaf, masks), labels).mean()
    torch.autograd.backward(clean)
    if leaf.grad is None:
        raise ModelError("the loss does not depend on the inputs")
    twins = leaf.detach() + float(Epsilon.parse(adversarial.epsilon)) * leaf.grad.sign()
    attacked = (1 - adversarial.alpha) * module.outputs.loss(module(twins, masks), labels).mean()
    torch.autograd.backward(attacked)
    return (clean + attacked).detach()


def _step_masks(
    module: Architecture, recipe: Recipe, step: int, count: int, device: torch.device
) -> Masks:
    if recipe.dropout.inputs == 0 and recipe.dropout.hidden == 0:
        return ()
    masks = draw_masks(
        module.layer_widths,
        count,
        input_rate=recipe.dropout.inputs,
        hidden_rate=recipe.dropout.hidden,
        generator=torch.Generator().manual_seed(derive_key(recipe.seed, "masks", step)),
    )
    return [None if mask is None else mask.to(device) for mask in masks]


def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_key(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def _make_optimiser(module: Architecture, recipe: Optimiser) -> torch.optim.Optimizer:
    groups = [
        {"params": [parameter], "lr": recipe.rates.get(name, recipe.learning_rate)}
        for name, parameter in module.named_parameters()
    ]
    for group in groups:
        group["first_lr"] = group["lr"]
    if recipe.name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    # The fused form takes an eighth of the time of the plain one here.
    return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)


def _set_rates(optimiser: torch.optim.Optimizer, recipe: Optimiser, progress: float) -> None:
    """Sets the learning rates after a share ``progress`` of all steps, in [0, 1)."""
    factor = 1 - progress if recipe.schedule == "linear" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = factor * group["first_lr"]


def _check(module: Architecture, recipe: Recipe) -> None:
    parameters = [name for name, _ in module.named_parameters()]
    for name in recipe.optimiser.rates:
        if name not in parameters:
            raise SpecError(
                f"no parameter {name!r} in {recipe.architecture}, only {', '.join(parameters)}",
                where="recipe: optimiser.rates",
            )
    if recipe.max_norm is not None and not module.unit_weights():
        raise SpecError(f"{recipe.architecture} has no norm to bound", where="recipe: max_norm")
    if recipe.dropout.hidden and len(module.layer_widths) == 1:
        raise SpecError(
            f"{recipe.architecture} has no hidden layer", where="recipe: dropout.hidden"
        )


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    # Adam's second moments of pixels that are hardly ever lit decay into denormal numbers, which
    # are many times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
