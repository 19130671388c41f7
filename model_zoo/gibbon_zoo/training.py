"""The loop that trains every model of the zoo.

Random numbers depend on the seed and the position in the training alone: the order of an epoch's
examples on (seed, epoch), the dropout masks of a step on (seed, step).  A training that is resumed
from a checkpoint therefore ends with exactly the weights of an uninterrupted one, on one machine
with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gibbon.core.errors import ModelError, SpecError
from gibbon.core.rng import derive_key
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture, Masks, constrain_norms, draw_masks
from gibbon_zoo.early_stopping import HeldOutFigures, StoppingRule
from gibbon_zoo.optimisers import make_optimiser, set_schedules
from gibbon_zoo.recipe import Recipe
from gibbon_zoo.schedules import Position, learning_rate, momentum
from gibbon_zoo.training_checkpoint import (
    TrainingCheckpoint,
    read_training_checkpoint,
    write_checkpoint,
)
from gibbon_zoo.training_log import EpochRecord
from gibbon_zoo.training_objectives import descend, draw_noise, objective_value

REPORT_STEPS = 20
CHECKPOINT_SECONDS = 20.0
LARGEST_WRITING_SHARE = 0.05  # of the time; checkpoints of large networks come less often
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """The point of an earlier training that another one continues from.

    Args:
        parameters: the module's tensors by name.
        updates: updates done until then, from which the schedule of the learning rate goes on.
        epoch: number of its last epoch, whose momentum is kept.
    """

    parameters: Weights
    updates: int
    epoch: int


@dataclass(frozen=True)
class Fitted:
    """A trained module.

    Args:
        module: with the parameters of the last step.
        seconds: duration of the training, over all resumptions.
        history: figures of every epoch.
        best: parameters of the best epoch, if a rule chose one.
    """

    module: Architecture
    seconds: float
    history: tuple[EpochRecord, ...] = ()
    best: Weights | None = None


def fit(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    checkpoint: Path,
    report: Callable[[TrainingProgress], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    rule: StoppingRule | None = None,
    origin: Origin | None = None,
    log: Callable[[Sequence[EpochRecord]], None] = lambda history: None,
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
        rule: measures the module after every epoch, and may end training early.
        origin: the point that training continues from, in place of the recipe's start.
        log: called with the history after every epoch.

    Raises `SpecError` if the recipe does not fit the architecture, `ModelError` if the loss
    stops being finite, and what `read_training_checkpoint` and `write_checkpoint` raise.
    """
    check_fit(module, recipe)
    course = _Course(recipe, examples=len(inputs), origin=origin)
    optimiser = make_optimiser(module, recipe.optimiser)
    state = _resume(module, optimiser, checkpoint, recipe) or _begin(module, course, inputs, labels)
    earlier, began = state.seconds, time.monotonic()
    saved, pause = began, 0.0
    losses = _LossReport(report, course)
    order = course.order(state.step)
    ended = state.step == course.steps or (rule is not None and rule.ended(state.history))

    with _denormals_flushed():
        while not ended:
            if state.step % course.steps_an_epoch == 0:
                order = course.order(state.step)
            rows = order[course.batch(state.step)].to(inputs.device)
            loss = _descend_step(
                module,
                optimiser,
                course,
                step=state.step,
                inputs=inputs.index_select(0, rows),
                labels=labels.index_select(0, rows),
            )
            state.step += 1
            state.loss = state.loss + loss
            losses.add(loss, step=state.step)
            ended = state.step == course.steps
            if state.step % course.steps_an_epoch == 0:
                figures = HeldOutFigures() if rule is None else rule.measure(module)
                state.seconds = earlier + time.monotonic() - began
                _end_epoch(state, course, figures)
                log(state.history)
                if rule is not None and rule.keeps(state.history):
                    state.best = {key: value.clone() for key, value in module.state_dict().items()}
                ended = ended or (rule is not None and rule.ended(state.history))
            now = time.monotonic()
            if now - saved >= max(checkpoint_seconds, pause) or ended:
                state.seconds = earlier + now - began
                _save(state, module, optimiser, checkpoint, recipe)
                saved = time.monotonic()
                pause = (saved - now) / LARGEST_WRITING_SHARE if checkpoint_seconds > 0 else 0.0
    return Fitted(module, state.seconds, tuple(state.history), state.best)


def mean_objective(
    module: Architecture, recipe: Recipe, *, inputs: Tensor, labels: Tensor
) -> float:
    """Returns the mean of a recipe's objective over examples, which changes nothing.

    Its dropout masks and noise are drawn as in training, equal for equal numbers of examples.

    Args:
        module: network in training.
        recipe: selects the objective.
        inputs: float32, shape (N, ...), on the module's device.
        labels: int64, shape (N,).
    """
    total, size = 0.0, recipe.batch_size
    for first in range(0, len(inputs), size):
        x, y = inputs[first : first + size], labels[first : first + size]
        key = -1 - first // size  # the steps of a training have keys from 0 on
        value = objective_value(
            module,
            recipe,
            inputs=noisy(x, recipe, step=key),
            labels=y,
            **step_masks(module, recipe, key, len(x), x.device),
        )
        total += float(value) * len(x)
    return total / len(inputs)


def noisy(inputs: Tensor, recipe: Recipe, *, step: int) -> Tensor:
    """Returns a step's inputs with the recipe's noise, if any, added."""
    if recipe.noise is None:
        return inputs
    return inputs + draw_noise(inputs, recipe.noise, seed=recipe.seed, step=step)


def step_masks(
    module: Architecture, recipe: Recipe, step: int, count: int, device: torch.device
) -> dict[str, Masks]:
    """Returns the dropout masks of a step for ``count`` examples, as arguments of `descend`."""
    masks = {"masks": _draw(module, recipe, ("masks", step), count, device)}
    if recipe.adversarial is not None and recipe.adversarial.masks == "own":
        masks["perturbed_masks"] = _draw(module, recipe, ("perturbed", step), count, device)
    return masks


def _draw(
    module: Architecture,
    recipe: Recipe,
    key: tuple[str, int],
    count: int,
    device: torch.device,
) -> Masks:
    masks = draw_masks(
        module.layer_widths,
        count,
        input_rate=recipe.dropout.inputs,
        hidden_rate=recipe.dropout.hidden,
        input_scale=recipe.dropout.inputs_scale,
        hidden_scale=recipe.dropout.hidden_scale,
        generator=torch.Generator().manual_seed(derive_key(recipe.seed, *key)),
    )
    return [None if mask is None else mask.to(device) for mask in masks]


@dataclass
class _TrainingState:
    """The state of a training; ``loss`` is the sum over the steps of the current epoch."""

    step: int
    seconds: float
    loss: Tensor
    history: list[EpochRecord] = field(default_factory=list)
    best: Weights | None = None


@dataclass(frozen=True)
class _Course:
    """The position of each step: its epoch, its examples and the updates before it."""

    recipe: Recipe
    examples: int
    origin: Origin | None

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self.examples / self.recipe.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_an_epoch * self.recipe.epochs

    def key(self, step: int) -> int:
        """Returns the number that a step's random numbers are drawn by."""
        return step + (self.origin.updates if self.origin else 0)

    def position(self, step: int) -> Position:
        epoch = 1 + step // self.steps_an_epoch + (self.origin.epoch if self.origin else 0)
        return Position(self.key(step), epoch, step / self.steps)

    def momentum_epoch(self, step: int) -> int:
        return self.origin.epoch if self.origin else self.position(step).epoch

    def order(self, step: int) -> Tensor:
        """Returns the order of the examples in a step's epoch."""
        epoch = self.position(step).epoch - 1
        key = derive_key(self.recipe.seed, "order", epoch)
        return torch.randperm(self.examples, generator=torch.Generator().manual_seed(key))

    def batch(self, step: int) -> slice:
        first = step % self.steps_an_epoch * self.recipe.batch_size
        return slice(first, first + self.recipe.batch_size)


class _LossReport:
    """Reports the mean loss every few steps.  Raises `ModelError` if it stops being finite."""

    def __init__(self, report: Callable[[TrainingProgress], None], course: _Course) -> None:
        self.report = report
        self.course = course
        self.terms: list[Tensor] = []

    def add(self, loss: Tensor, *, step: int) -> None:
        """Takes the loss of a step, the number of steps done after it."""
        self.terms.append(loss)
        if step % REPORT_STEPS and step != self.course.steps:
            return
        mean, recipe = float(torch.stack(self.terms).mean()), self.course.recipe
        self.terms.clear()
        epochs_done, into_epoch = divmod(step, self.course.steps_an_epoch)
        if not math.isfinite(mean):
            epoch = epochs_done + (into_epoch > 0)
            raise ModelError(
                f"training diverged: the loss was {mean} in epoch {epoch} of {recipe.epochs}; "
                "try a lower learning rate"
            )
        self.report(TrainingProgress(step, self.course.steps, epochs_done, recipe.epochs, mean))


def _descend_step(
    module: Architecture,
    optimiser: torch.optim.Optimizer,
    course: _Course,
    *,
    step: int,
    inputs: Tensor,
    labels: Tensor,
) -> Tensor:
    """Updates the module by one batch and returns its objective."""
    recipe, key = course.recipe, course.key(step)
    set_schedules(
        optimiser,
        recipe.optimiser,
        now=course.position(step),
        before=course.position(step - 1) if step > 0 else None,
        momentum_epoch=course.momentum_epoch(step),
    )
    optimiser.zero_grad(set_to_none=True)
    loss = descend(
        module,
        recipe,
        inputs=noisy(inputs, recipe, step=key),
        labels=labels,
        **step_masks(module, recipe, key, len(inputs), inputs.device),
    )
    optimiser.step()
    if recipe.max_norm is not None:
        constrain_norms(module.unit_weights(), recipe.max_norm)
    return loss


def _begin(module: Architecture, course: _Course, inputs: Tensor, labels: Tensor) -> _TrainingState:
    if course.origin is None:
        recipe = course.recipe
        start = torch.Generator().manual_seed(derive_key(recipe.seed, "start"))
        module.start(inputs, labels, spread=recipe.spread, generator=start)
    else:
        module.load_state_dict(dict(course.origin.parameters))
    return _TrainingState(step=0, seconds=0.0, loss=torch.zeros((), device=inputs.device))


def _resume(
    module: Architecture, optimiser: torch.optim.Optimizer, checkpoint: Path, recipe: Recipe
) -> _TrainingState | None:
    resumed = read_training_checkpoint(checkpoint, recipe)
    if resumed is None:
        return None
    module.load_state_dict(resumed.parameters)
    optimiser.load_state_dict(resumed.optimiser)
    device = next(module.parameters()).device
    best = None if resumed.best is None else {k: v.to(device) for k, v in resumed.best.items()}
    history = [EpochRecord(**record) for record in resumed.history]
    return _TrainingState(resumed.step, resumed.seconds, resumed.loss.to(device), history, best)


def _save(
    state: _TrainingState,
    module: Architecture,
    optimiser: torch.optim.Optimizer,
    checkpoint: Path,
    recipe: Recipe,
) -> None:
    content = TrainingCheckpoint(
        step=state.step,
        seconds=state.seconds,
        parameters=module.state_dict(),
        optimiser=optimiser.state_dict(),
        loss=state.loss,
        history=[asdict(record) for record in state.history],
        best=None if state.best is None else dict(state.best),
    )
    write_checkpoint(checkpoint, content, recipe)


def _end_epoch(state: _TrainingState, course: _Course, figures: HeldOutFigures) -> None:
    """Adds the record of the epoch whose last step is done."""
    optimiser, last = course.recipe.optimiser, state.step - 1
    record = EpochRecord(
        epoch=course.position(last).epoch,
        loss=float(state.loss) / course.steps_an_epoch,
        learning_rate=learning_rate(optimiser, course.position(last), base=optimiser.learning_rate),
        momentum=momentum(optimiser, epoch=course.momentum_epoch(last)),
        seconds=state.seconds,
        **asdict(figures),
    )
    state.history.append(record)
    state.loss = torch.zeros_like(state.loss)


def check_fit(module: Architecture, recipe: Recipe) -> None:
    """Raises `SpecError` if a recipe does not fit an architecture."""
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
