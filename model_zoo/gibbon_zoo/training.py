"""The training loop, for the models of the zoo and for those of users.

Random numbers depend on the seed and the position in the training alone: the order of an epoch's
examples on (seed, epoch), the dropout masks of a step on (seed, step).  A training that is resumed
from a checkpoint therefore ends with exactly the weights of an uninterrupted one, on one machine
with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor

from gibbon.core.endings import holding_signals
from gibbon.core.errors import ModelError, RunFolderError, SpecError
from gibbon.core.rng import derive_key
from gibbon.datasets.base import Batch
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture, Masks, constrain_norms, draw_masks
from gibbon_zoo.early_stopping import HeldOutFigures, StoppingRule
from gibbon_zoo.learner import ExampleFeed, HeldExamples, Learner, M
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
class Fitted(Generic[M]):
    """A trained module.

    Args:
        module: with the parameters of the last step.
        seconds: duration of the training, over all resumptions.
        history: figures of every epoch.
        best: parameters of the best epoch, if a rule chose one.
    """

    module: M
    seconds: float
    history: tuple[EpochRecord, ...] = ()
    best: Weights | None = None


class Observer:
    """Follows a training and changes nothing in it; this one ignores all of it."""

    def begin(self, step: int) -> None:
        """Takes the number of steps done before the first one that follows."""

    def epoch(self, history: Sequence[EpochRecord], *, step: int) -> None:
        """Takes the records of all epochs so far, and the number of steps done."""


def fit(
    module: Architecture,
    recipe: Recipe,
    *,
    inputs: Tensor,
    labels: Tensor,
    checkpoint: Path,
    report: Callable[[TrainingProgress], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    rule: StoppingRule[Architecture] | None = None,
    origin: Origin | None = None,
    log: Callable[[Sequence[EpochRecord]], None] = lambda history: None,
) -> Fitted[Architecture]:
    """Trains an architecture in place and returns it with the duration, summed over resumptions.

    Args:
        module: on the device to train on.
        recipe: recipe of the training.
        inputs: float32, shape (N, ...), on the module's device.
        labels: int64, shape (N,), on the module's device.
        checkpoint: file that is read at the start and written as training goes on.
        report: called every few steps.
        checkpoint_seconds: as of `fit_learner`.
        rule: measures the module after every epoch, and may end training early.
        origin: the point that training continues from.
        log: called with the history after every epoch.
    """
    return fit_learner(
        ZooLearner(module, recipe, _held(inputs, labels)),
        checkpoint=checkpoint,
        report=report,
        checkpoint_seconds=checkpoint_seconds,
        rule=rule,
        origin=origin,
        log=log,
    )


def fit_learner(
    learner: Learner[M],
    *,
    checkpoint: Path,
    report: Callable[[TrainingProgress], None],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    rule: StoppingRule[M] | None = None,
    origin: Origin | None = None,
    log: Callable[[Sequence[EpochRecord]], None] = lambda history: None,
    observer: Observer | None = None,
) -> Fitted[M]:
    """Trains a learner's module in place and returns it with the duration, over all resumptions.

    Resumes from the checkpoint if there is one; the last checkpoint written stays.  A signal to
    end, such as Ctrl-C, is handled between two steps, after a checkpoint; a second one at once.

    Args:
        learner: the module, its examples and its objective.
        checkpoint: file that is read at the start and written as training goes on.
        report: called every few steps.
        checkpoint_seconds: seconds between checkpoints; more if a checkpoint is so large that
            writing it takes a large share of them, and 0 writes one after every step.
        rule: measures the module after every epoch, and may end training early.
        origin: the point that training continues from, in place of the recipe's start.
        log: called with the history after every epoch.
        observer: follows the training.

    Raises `SpecError` if the recipe does not fit the module, `ModelError` if the loss stops being
    finite, and what `read_training_checkpoint` and `write_checkpoint` raise.
    """
    learner.check()
    module, recipe = learner.module, learner.recipe
    course = _Course(learner, origin=origin)
    optimiser = make_optimiser(module, recipe.optimiser)
    state = _resume(learner, optimiser, checkpoint) or _begin(learner, origin)
    earlier, began = state.seconds, time.monotonic()
    saved, pause = began, 0.0
    losses = _LossReport(report, course, may_stop=rule is not None)
    ended = state.step == course.steps or (rule is not None and rule.ended(state.history))
    if observer is not None:
        observer.begin(state.step)

    with _denormals_flushed(), holding_signals() as signals:
        while not ended:
            feed = learner.examples.feed(course.chunks(state.step))
            with closing(feed):
                for inputs, labels in feed:
                    loss = _descend_step(
                        learner, optimiser, course, step=state.step, inputs=inputs, labels=labels
                    )
                    state.step += 1
                    state.loss = state.loss + loss
                    losses.add(loss, step=state.step)
                    ended = state.step == course.steps
                    if state.step % course.steps_an_epoch == 0:
                        figures = HeldOutFigures() if rule is None else rule.measure(module)
                        state.seconds = earlier + time.monotonic() - began
                        _end_epoch(state, course, figures)
                        losses.note(state.history, step=state.step)
                        log(state.history)
                        if observer is not None:
                            observer.epoch(state.history, step=state.step)
                        if rule is not None and rule.keeps(state.history):
                            state.best = {
                                key: value.clone() for key, value in module.state_dict().items()
                            }
                        ended = ended or (rule is not None and rule.ended(state.history))
                    now = time.monotonic()
                    ends = ended or signals.number is not None
                    if ends or now - saved >= max(checkpoint_seconds, pause):
                        state.seconds = earlier + now - began
                        _save(state, learner, optimiser, checkpoint)
                        saved = time.monotonic()
                        pause = (saved - now) / LARGEST_WRITING_SHARE if checkpoint_seconds else 0.0
                    signals.handle()
                    if ended:
                        break
    return Fitted(module, state.seconds, tuple(state.history), state.best)


class ZooLearner(Learner[Architecture]):
    """An architecture of the zoo, trained by its recipe.

    Args:
        module: on the device to train on.
        recipe: recipe of the training.
        examples: on the module's device.
    """

    recipe: Recipe

    def __init__(self, module: Architecture, recipe: Recipe, examples: ExampleFeed) -> None:
        self.module, self.recipe, self.examples = module, recipe, examples

    def check(self) -> None:
        """Raises `SpecError` if the recipe does not fit the architecture."""
        check_fit(self.module, self.recipe)

    def start(self) -> None:
        """Draws the parameters that start at random, and zeroes the others."""
        generator = torch.Generator().manual_seed(derive_key(self.recipe.seed, "start"))
        inputs, labels = self.examples.whole()
        self.module.start(inputs, labels, spread=self.recipe.spread, generator=generator)

    def descend(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Adds the gradient of the recipe's objective and returns its value."""
        return descend(
            self.module,
            self.recipe,
            inputs=noisy(inputs, self.recipe, step=key),
            labels=labels,
            **step_masks(self.module, self.recipe, key, len(inputs), inputs.device),
        )

    def objective(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Returns the recipe's objective."""
        return objective_value(
            self.module,
            self.recipe,
            inputs=noisy(inputs, self.recipe, step=key),
            labels=labels,
            **step_masks(self.module, self.recipe, key, len(inputs), inputs.device),
        )

    def for_examples(self, module: Architecture, examples: ExampleFeed) -> ZooLearner:
        """Returns a learner of another network and other examples, by this recipe."""
        return ZooLearner(module, self.recipe, examples)

    def constrain(self) -> None:
        """Bounds the norms of units' incoming weights."""
        if self.recipe.max_norm is not None:
            constrain_norms(self.module.unit_weights(), self.recipe.max_norm)


def _held(inputs: Tensor, labels: Tensor) -> HeldExamples:
    return HeldExamples(Batch(torch.arange(len(labels), device=labels.device), inputs, labels))


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


class _Course:
    """The position of each step: its epoch, its examples and the updates before it."""

    def __init__(self, learner: Learner[M], *, origin: Origin | None) -> None:
        self.recipe, self.origin = learner.recipe, origin
        self.examples, self.replays = len(learner.examples), learner.replays
        self.smallest_batch = learner.smallest_batch

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(self.examples / self.recipe.batch_size)

    @property
    def steps(self) -> int:
        return self.steps_an_epoch * self.recipe.epochs

    def key(self, step: int) -> int:
        """Returns the number that a step's random numbers are drawn by.

        Divided by ``replays`` it is equal for all steps on a batch.
        """
        before = self.origin.updates if self.origin else 0
        return step + math.ceil(before / self.replays) * self.replays

    def position(self, step: int) -> Position:
        before, epochs = (self.origin.updates, self.origin.epoch) if self.origin else (0, 0)
        return Position(step + before, 1 + step // self.steps_an_epoch + epochs, step / self.steps)

    def momentum_epoch(self, step: int) -> int:
        return self.origin.epoch if self.origin else self.position(step).epoch

    def chunks(self, step: int) -> list[Tensor]:
        """Returns the positions of the examples of each step from this one to its epoch's last.

        Each batch serves ``replays`` steps, and all of them make a pass over the examples; without
        replays a pass is an epoch.
        """
        found: list[Tensor] = []
        order, of_pass, last = None, -1, -1
        for each in range(step, (step // self.steps_an_epoch + 1) * self.steps_an_epoch):
            batch = each // self.replays
            if batch == last:
                found.append(found[-1])
                continue
            last = batch
            passed, place = divmod(batch, self.steps_an_epoch)
            if order is None or passed != of_pass:
                order, of_pass = self._order(passed), passed
            first = place * self.recipe.batch_size
            first = min(first, max(0, self.examples - self.smallest_batch))
            end = min((place + 1) * self.recipe.batch_size, self.examples)
            found.append(order[first:end])
        return found

    def _order(self, passed: int) -> Tensor:
        """Returns the order of the examples after so many passes over them."""
        number = passed + (self.origin.epoch if self.origin else 0)
        key = derive_key(self.recipe.seed, "order", number)
        return torch.randperm(self.examples, generator=torch.Generator().manual_seed(key))


class _LossReport:
    """Reports the mean loss every few steps and after each epoch.

    Raises `ModelError` if it stops being finite.
    """

    def __init__(
        self, report: Callable[[TrainingProgress], None], course: _Course, *, may_stop: bool
    ) -> None:
        self.report = report
        self.course = course
        self.may_stop = may_stop
        self.terms: list[Tensor] = []
        self.last = 0.0

    def add(self, loss: Tensor, *, step: int) -> None:
        """Takes the loss of a step, the number of steps done after it."""
        self.terms.append(loss)
        epochs_done, into_epoch = divmod(step, self.course.steps_an_epoch)
        if step % REPORT_STEPS and into_epoch:
            return
        mean, recipe = float(torch.stack(self.terms).mean()), self.course.recipe
        self.terms.clear()
        if not math.isfinite(mean):
            epoch = epochs_done + (into_epoch > 0)
            raise ModelError(
                f"training diverged: the loss was {mean} in epoch {epoch} of {recipe.epochs}; "
                "try a lower learning rate"
            )
        self.last = mean
        self._report(step, epochs_done)

    def note(self, history: Sequence[EpochRecord], *, step: int) -> None:
        """Reports a sentence about the epoch that a step ended, if the epoch before had none."""
        text = history[-1].note
        if text and not (len(history) > 1 and history[-2].note):
            self._report(step, step // self.course.steps_an_epoch, note=text)

    def _report(self, step: int, epoch: int, *, note: str = "") -> None:
        course = self.course
        progress = TrainingProgress(
            step,
            course.steps,
            epoch,
            course.recipe.epochs,
            self.last,
            note=note,
            may_stop=self.may_stop,
        )
        self.report(progress)


def _descend_step(
    learner: Learner[M],
    optimiser: torch.optim.Optimizer,
    course: _Course,
    *,
    step: int,
    inputs: Tensor,
    labels: Tensor,
) -> Tensor:
    """Updates the module by one batch and returns its objective."""
    set_schedules(
        optimiser,
        course.recipe.optimiser,
        now=course.position(step),
        before=course.position(step - 1) if step > 0 else None,
        momentum_epoch=course.momentum_epoch(step),
    )
    optimiser.zero_grad(set_to_none=True)
    loss = learner.descend(inputs, labels, key=course.key(step))
    optimiser.step()
    learner.constrain()
    return loss


def _begin(learner: Learner[M], origin: Origin | None) -> _TrainingState:
    if origin is None:
        learner.start()
    else:
        learner.module.load_state_dict(dict(origin.parameters))
    return _TrainingState(step=0, seconds=0.0, loss=torch.zeros((), device=learner.examples.device))


def _resume(
    learner: Learner[M], optimiser: torch.optim.Optimizer, checkpoint: Path
) -> _TrainingState | None:
    resumed = read_training_checkpoint(checkpoint, learner.recipe)
    if resumed is None:
        return None
    try:
        learner.module.load_state_dict(resumed.parameters)
        optimiser.load_state_dict(resumed.optimiser)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(
            f"{checkpoint}: the checkpoint is of another network ({reason}); choose another folder "
            "or start fresh (--fresh)"
        ) from error
    device = learner.examples.device
    learner.restore({key: value.to(device) for key, value in resumed.carried.items()})
    best = None if resumed.best is None else {k: v.to(device) for k, v in resumed.best.items()}
    history = [EpochRecord(**record) for record in resumed.history]
    return _TrainingState(resumed.step, resumed.seconds, resumed.loss.to(device), history, best)


def _save(
    state: _TrainingState, learner: Learner[M], optimiser: torch.optim.Optimizer, checkpoint: Path
) -> None:
    content = TrainingCheckpoint(
        step=state.step,
        seconds=state.seconds,
        parameters=learner.module.state_dict(),
        optimiser=optimiser.state_dict(),
        loss=state.loss,
        history=[asdict(record) for record in state.history],
        best=None if state.best is None else dict(state.best),
        carried=learner.carried(),
    )
    write_checkpoint(checkpoint, content, learner.recipe)


def _end_epoch(state: _TrainingState, course: _Course, figures: HeldOutFigures) -> None:
    """Adds the record of the epoch whose last step is done."""
    optimiser, last = course.recipe.optimiser, state.step - 1
    if not state.history:  # a network that has hardly been trained proves nothing
        figures = replace(figures, note="")
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
