"""The training of one network by its recipe: one training, or early stopping and a second one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, Self

from gibbon.core.errors import ModelError
from gibbon.datasets.base import Batch
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.early_stopping import (
    EarlyStopping,
    HeldOutFigures,
    ObjectiveMatch,
    StoppingRule,
    best_epoch,
    held_out_positions,
)
from gibbon_zoo.learner import ExampleFeed, HeldExamples, Learner, M, mean_over
from gibbon_zoo.measurement import held_out_figures
from gibbon_zoo.monitor_settings import MonitorSettings
from gibbon_zoo.recipe import Recipe, Stopping
from gibbon_zoo.trained_network import TrainedNetwork
from gibbon_zoo.training import Fitted, Observer, Origin, ZooLearner, fit_learner
from gibbon_zoo.training_log import EpochRecord, write_log

TrainingReport = Callable[[TrainingProgress], None]
ONLY, SEARCH, SECOND = "training", "search", "second"  # parts of a training, as its log names them


class TrainingTask(ABC, Generic[M]):
    """A network to train, the examples, and how both are used.

    Attributes:
        examples: all examples that may be trained on.
    """

    examples: ExampleFeed

    @property
    @abstractmethod
    def stopping(self) -> Stopping | None:
        """Early stopping; None without it."""

    @abstractmethod
    def learner(self, examples: ExampleFeed) -> Learner[M]:
        """Returns a new network, to be trained on some of the examples."""

    @abstractmethod
    def divide(self, stopping: Stopping) -> tuple[ExampleFeed, ExampleFeed]:
        """Returns the examples to train on, and those that the stopping error is measured on."""

    @abstractmethod
    def figures(self, unseen: ExampleFeed) -> Callable[[M], HeldOutFigures]:
        """Returns a function that measures a network on examples."""

    @abstractmethod
    def lasting(self, epochs: int) -> Self:
        """Returns the task with another number of epochs."""

    def watched(self, module: M) -> tuple[MonitorSettings, TrainedNetwork] | None:
        """Returns what is written for TensorBoard, and the network that it is written of."""
        return None


@dataclass(frozen=True)
class ZooTask(TrainingTask[Architecture]):
    """A network of the zoo by its recipe.

    Args:
        recipe: recipe of the training.
        build: returns a new network.
        examples: the training split, on the device to train on.
        monitor: what is written for TensorBoard, if anything is.
    """

    recipe: Recipe
    build: Callable[[], Architecture]
    examples: ExampleFeed
    monitor: MonitorSettings | None = None

    @property
    def stopping(self) -> Stopping | None:
        """The recipe's early stopping."""
        return self.recipe.stopping

    def learner(self, examples: ExampleFeed) -> Learner[Architecture]:
        """Returns a new network on the examples' device."""
        return ZooLearner(self.build().to(examples.device), self.recipe, examples)

    def divide(self, stopping: Stopping) -> tuple[ExampleFeed, ExampleFeed]:
        """Returns the examples without the held-out ones, and these."""
        kept, unseen = held_out_positions(stopping, len(self.examples), seed=self.recipe.seed)
        return self.examples.take(kept), self.examples.take(unseen)

    def figures(self, unseen: ExampleFeed) -> Callable[[Architecture], HeldOutFigures]:
        """Returns a function that measures errors, clean and under FGSM."""
        inputs, labels = unseen.whole()
        stopping = self.recipe.stopping
        epsilon = 0.0 if stopping is None else stopping.fgsm_epsilon(self.recipe)
        return partial(held_out_figures, inputs=inputs, labels=labels, epsilon=epsilon)

    def lasting(self, epochs: int) -> Self:
        """Returns the task with another number of epochs."""
        return replace(self, recipe=self.recipe.override(epochs=epochs))

    def watched(self, module: Architecture) -> tuple[MonitorSettings, TrainedNetwork] | None:
        """Returns what is written for TensorBoard, of the network without dropout."""
        if self.monitor is None:
            return None
        return self.monitor, TrainedNetwork(module, module, module.outputs, module.bounds)


@dataclass(frozen=True)
class Trained(Generic[M]):
    """A trained network, and how early stopping went.

    Args:
        module: the network.
        seconds: duration of all parts.
        watched: the error that decided, after each epoch of the search.
        epochs: the best number of epochs; None without early stopping.
        second_epochs: epochs of a second training that continued from the best parameters.
        target: objective that was to end it.
        objective: objective that it ended with.
        history: figures of each epoch of the only training, or of the search.
    """

    module: M
    seconds: float
    watched: tuple[float, ...] = ()
    epochs: int | None = None
    second_epochs: int | None = None
    target: float | None = None
    objective: float | None = None
    history: tuple[EpochRecord, ...] = ()


def train_network(
    recipe: Recipe,
    build: Callable[[], Architecture],
    examples: Batch,
    *,
    stem: str,
    report: TrainingReport,
    monitor: MonitorSettings | None = None,
) -> Trained[Architecture]:
    """Returns one trained network of a recipe.

    Args:
        recipe: recipe of the training.
        build: returns a new network.
        examples: the training split, on the device to train on.
        stem: start of the names of the checkpoints and the log.
        report: receives the progress of the whole.
        monitor: what is written for TensorBoard, if anything is.

    Raises the errors of `gibbon_zoo.training.fit`.
    """
    task = ZooTask(recipe, build, HeldExamples(examples), monitor)
    return carry_out(task, stem=stem, report=report)


def carry_out(task: TrainingTask[M], *, stem: str, report: TrainingReport) -> Trained[M]:
    """Returns the trained network of a task; arguments and errors as of `train_network`."""
    return _Procedure(task, stem, report).train()


@dataclass(frozen=True)
class _Procedure(Generic[M]):
    task: TrainingTask[M]
    stem: str
    report: TrainingReport

    def train(self) -> Trained[M]:
        task, stopping = self.task, self.task.stopping
        if stopping is None:
            fitted = self.fit(task.learner(task.examples), part=ONLY)
            return Trained(fitted.module, fitted.seconds, history=fitted.history)
        shown, unseen = task.divide(stopping)
        rule = EarlyStopping(task.figures(unseen), stopping.measure, stopping.patience)
        learner = task.learner(shown)
        search = self.fit(learner, part=SEARCH, rule=rule, unseen=unseen)
        errors = tuple(rule.errors(search.history))
        best, history = best_epoch(errors), search.history
        found = Trained(search.module, search.seconds, errors, best, history=history)
        if stopping.second == "again":
            return self.train_again(found, search)
        if search.best is None:
            raise ModelError("early stopping kept no parameters")
        search.module.load_state_dict(dict(search.best))
        return found if stopping.second == "none" else self.train_on(found, search, learner, unseen)

    def train_again(self, found: Trained[M], search: Fitted[M]) -> Trained[M]:
        """Trains a new network on all examples, for the best number of epochs."""
        task = self.task.lasting(best_epoch(found.watched))
        learner = task.learner(task.examples)
        second = replace(self, task=task).fit(learner, part=SECOND, after=search)
        return replace(found, module=second.module, seconds=search.seconds + second.seconds)

    def train_on(
        self, found: Trained[M], search: Fitted[M], shown: Learner[M], unseen: ExampleFeed
    ) -> Trained[M]:
        """Continues on all examples until the objective on the unseen ones is that on the shown."""
        best, target = best_epoch(found.watched), mean_over(shown)
        origin = Origin(
            {key: value.clone() for key, value in found.module.state_dict().items()},
            updates=best * math.ceil(len(shown.examples) / shown.recipe.batch_size),
            epoch=best,
        )
        match: ObjectiveMatch[M] = ObjectiveMatch(
            lambda module: mean_over(shown.for_examples(module, unseen)), target
        )
        learner = self.task.learner(self.task.examples)
        second = self.fit(learner, part=SECOND, rule=match, origin=origin, after=search)
        return replace(
            found,
            module=second.module,
            seconds=search.seconds + second.seconds,
            second_epochs=len(second.history),
            target=target,
            objective=second.history[-1].objective,
        )

    def fit(
        self,
        learner: Learner[M],
        *,
        part: str,
        rule: StoppingRule[M] | None = None,
        origin: Origin | None = None,
        after: Fitted[M] | None = None,
        unseen: ExampleFeed | None = None,
    ) -> Fitted[M]:
        """Carries out one part of the training; the log holds the part before it, too."""
        one = self.task.stopping is None or self.task.stopping.second == "none"
        before = [] if after is None else [(SEARCH, after.history)]
        return fit_learner(
            learner,
            checkpoint=Path(f"{self.stem}{'.search' if part == SEARCH else ''}.checkpoint.pt"),
            report=report_of_part(self.report, part=int(part == SECOND), parts=1 if one else 2),
            rule=rule,
            origin=origin,
            log=lambda history: write_log(Path(f"{self.stem}.log.csv"), [*before, (part, history)]),
            observer=self.observer(learner, unseen, part=part, origin=origin),
        )

    def observer(
        self,
        learner: Learner[M],
        unseen: ExampleFeed | None,
        *,
        part: str,
        origin: Origin | None,
    ) -> Observer | None:
        """Returns what writes a part's events; those of a second training have a folder inside."""
        watched = self.task.watched(learner.module)
        if watched is None:
            return None
        from gibbon_zoo.training_monitor import TrainingMonitor  # imports TensorBoard

        settings, network = watched
        if part == SECOND:
            settings = replace(settings, folder=settings.folder / SECOND)
        return TrainingMonitor(
            settings,
            network,
            steps_an_epoch=math.ceil(len(learner.examples) / learner.recipe.batch_size),
            first_epoch=1 if origin is None else origin.epoch + 1,
            examples=learner.examples,
            unseen=unseen,
        )


def report_of_part(report: TrainingReport, *, part: int, parts: int) -> TrainingReport:
    """Returns a report for one of several trainings, which reports the progress of all."""

    def report_part(progress: TrainingProgress) -> None:
        whole = replace(
            progress,
            step=part * progress.steps + progress.step,
            steps=parts * progress.steps,
            epoch=part * progress.epochs + progress.epoch,
            epochs=parts * progress.epochs,
        )
        report(whole)

    return report_part
