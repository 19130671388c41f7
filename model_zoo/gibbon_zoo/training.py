"""The loop that trains every model of the zoo.

Random numbers depend on the seed and the position in the training alone: the order of an epoch's
examples on (seed, epoch), the dropout masks of a step on (seed, step).  A training that is resumed
from a checkpoint therefore ends with exactly the weights of an uninterrupted one, on one machine
with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gibbon.core.errors import ModelError, SpecError
from gibbon.core.rng import derive_key
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture, Masks, constrain_norms, draw_masks
from gibbon_zoo.recipe import Optimiser, Recipe
from gibbon_zoo.training_checkpoint import TrainingCheckpoint, read_checkpoint, write_checkpoint
from gibbon_zoo.training_objectives import descend, draw_noise

REPORT_STEPS = 20
CHECKPOINT_SECONDS = 20.0
LARGEST_WRITING_SHARE = 0.05  # of the time; checkpoints of large networks come less often


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a training when an error no longer falls.

    Args:
        error: returns the error of the module that is trained, in its current state.
        patience: epochs without a lower error after which training ends.
    """

    error: Callable[[Architecture], float]
    patience: int

    def ended(self, errors: Sequence[float]) -> bool:
        """Returns whether training ends after epochs with these errors."""
        return bool(errors) and len(errors) - best_epoch(errors) >= self.patience


@dataclass(frozen=True)
class Fitted:
    """A trained module, the duration, and the error after each epoch if it could stop early."""

    module: Architecture
    seconds: float
    watched: tuple[float, ...] = ()


def best_epoch(errors: Sequence[float]) -> int:
    """Returns the number of epochs until the lowest error was first reached.

    >>> best_epoch([0.3, 0.1, 0.2, 0.1])
    2
    """
    return 1 + min(range(len(errors)), key=lambda epoch: errors[epoch])


def validation_split(count: int, *, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the positions to train on, and the ``held_out`` last ones of a seeded shuffle.

    Raises `SpecError` if nothing would be left to train on.

    >>> kept, held_out = validation_split(5, held_out=2, seed=0)
    >>> len(kept), sorted(torch.cat((kept, held_out)).tolist())
    (3, [0, 1, 2, 3, 4])
    """
    if held_out >= count:
        raise SpecError(
            f"{held_out} examples can't be held out of {count}", where="recipe: stopping.held_out"
        )
    generator = torch.Generator().manual_seed(derive_key(seed, "validation"))
    order = torch.randperm(count, generator=generator)
    return order[: count - held_out], order[count - held_out :]


def fit(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    checkpoint: Path,
    report: Callable[[TrainingProgress], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    watch: EarlyStopping | None = None,
) -> Fitted:
    """Trains a module in place and returns it with the duration, summed over resumptions.

    Resumes from the checkpoint if there is one; the last checkpoint written stays.

    Args:
        module: on the device to train on.
        recipe: recipe of the training.
        inputs: float32, shape (N, ...), on the module's device.
        labels: int64, shape (N,), on the module's device.
        checkpoint: file that is read at the start and written as training goes on.
        report: called every few steps.
        checkpoint_seconds: seconds between checkpoints; more if a checkpoint is so large that
            writing it takes a large share of them, and 0 writes one after every step.
        watch: measures an error after every epoch, and ends training early.

    Raises `SpecError` if the recipe does not fit the architecture, `ModelError` if the loss
    stops being finite, and what `read_checkpoint` and `write_checkpoint` raise.
    """
    _check(module, recipe)
    optimiser = _make_optimiser(module, recipe.optimiser)
    step, before, watched = 0, 0.0, list[float]()
    resumed = read_checkpoint(checkpoint, recipe)
    if resumed is None:
        start = torch.Generator().manual_seed(derive_key(recipe.seed, "start"))
        module.start(inputs, labels, spread=recipe.spread, generator=start)
    else:
        module.load_state_dict(resumed.parameters)
        optimiser.load_state_dict(resumed.optimiser)
        step, before, watched = resumed.step, resumed.seconds, list(resumed.watched)

    count = len(inputs)
    steps_an_epoch = math.ceil(count / recipe.batch_size)
    steps = steps_an_epoch * recipe.epochs
    began = saved = time.monotonic()
    pause = 0.0
    total, terms = torch.zeros((), device=inputs.device), 0
    order = _epoch_order(recipe.seed, step // steps_an_epoch, count)

    with _denormals_flushed():
        while step < steps and not (watch and watch.ended(watched)):
            epoch, position = divmod(step, steps_an_epoch)
            if position == 0:
                order = _epoch_order(recipe.seed, epoch, count)
            rows = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
            rows = rows.to(inputs.device)
            _set_rates(optimiser, recipe.optimiser, step / steps)
            optimiser.zero_grad(set_to_none=True)
            masks = _step_masks(module, recipe, step, len(rows), inputs.device)
            batch = inputs[rows]
            if recipe.noise is not None:
                batch = batch + draw_noise(batch, recipe.noise, seed=recipe.seed, step=step)
            loss = descend(module, recipe, inputs=batch, labels=labels[rows], masks=masks)
            optimiser.step()
            if recipe.max_norm is not None:
                constrain_norms(module.unit_weights(), recipe.max_norm)
            step += 1
            if watch is not None and step % steps_an_epoch == 0:
                watched.append(watch.error(module))

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
            ended = step == steps or (watch is not None and watch.ended(watched))
            if now - saved >= max(checkpoint_seconds, pause) or ended:
                seconds = before + now - began
                state = TrainingCheckpoint(
                    step, seconds, module.state_dict(), optimiser.state_dict(), tuple(watched)
                )
                write_checkpoint(checkpoint, state, recipe)
                saved = time.monotonic()
                pause = (saved - now) / LARGEST_WRITING_SHARE if checkpoint_seconds > 0 else 0.0
    return Fitted(module, before + time.monotonic() - began, tuple(watched))


def _step_masks(
    module: Architecture, recipe: Recipe, step: int, count: int, device: torch.device
) -> Masks:
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
    for key, named in (("optimiser.rates", recipe.optimiser.rates), ("l1_decay", recipe.l1_decay)):
        for name in named:
            if name not in parameters:
                raise SpecError(
                    f"no parameter {name!r} in {recipe.architecture}, only {', '.join(parameters)}",
                    where=f"recipe: {key}",
                )
    hidden = recipe.adversarial is not None and recipe.adversarial.perturbs == "hidden"
    flat, curved = len(module.layer_widths) == 1, module.linear_weights() is None
    unbounded = not module.unit_weights()
    for fault, key, said in (
        (recipe.max_norm is not None and unbounded, "max_norm", "has no norm to bound"),
        (recipe.dropout.hidden and flat, "dropout.hidden", "has no hidden layer"),
        (hidden and flat, "adversarial.perturbs", "has no hidden layer"),
        (
            recipe.worst_case is not None and curved,
            "worst_case",
            "is not linear: its worst case has no closed form",
        ),
    ):
        if fault:
            raise SpecError(f"{recipe.architecture} {said}", where=f"recipe: {key}")


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    # Adam's second moments of pixels that are nearly always 0 decay into denormal numbers, which
    # are many times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
