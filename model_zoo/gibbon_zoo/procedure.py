"""The training of one network by its recipe: one training, or early stopping and a second one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from gibbon.core.errors import ModelError
from gibbon.datasets.base import Batch
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.early_stopping import (
    EarlyStopping,
    ObjectiveMatch,
    StoppingRule,
    best_epoch,
    held_out_positions,
)
from gibbon_zoo.measurement import held_out_figures
from gibbon_zoo.recipe import Recipe, Stopping
from gibbon_zoo.training import Fitted, Origin, fit, mean_objective
from gibbon_zoo.training_log import write_log

Report = Callable[[TrainingProgress], None]
ONLY, SEARCH, SECOND = "training", "search", "second"  # parts of a training, as its log names them


@dataclass(frozen=True)
class Trained:
    """A trained network, and how early stopping went.

    Args:
        module: the network.
        seconds: duration of all parts.
        watched: the error that decided, after each epoch of the search.
        epochs: the best number of epochs; None without early stopping.
        second_epochs: epochs of a second training that continued from the best parameters.
        target: objective that was to end it.
        objective: objective that it ended with.
    """

    module: Architecture
    seconds: float
    watched: tuple[float, ...] = ()
    epochs: int | None = None
    second_epochs: int | None = None
    target: float | None = None
    objective: float | None = None


def train_network(
    recipe: Recipe, build: Callable[[], Architecture], examples: Batch, *, stem: str, report: Report
) -> Trained:
    """Returns one trained network of a recipe.

    Args:
        recipe: recipe of the training.
        build: returns a new network.
        examples: the training split, on the device to train on.
        stem: start of the names of the checkpoints and the log.
        report: receives the progress of the whole.

    Raises the errors of `gibbon_zoo.training.fit`.
    """
    return _Procedure(recipe, build, examples, stem, report).train()


@dataclass(frozen=True)
class _Procedure:
    recipe: Recipe
    build: Callable[[], Architecture]
    examples: Batch
    stem: str
    report: Report

    def train(self) -> Trained:
        stopping = self.recipe.stopping
        if stopping is None:
            fitted = self.fit(self.examples, part=ONLY)
            return Trained(fitted.module, fitted.seconds)
        rows = held_out_positions(stopping, len(self.examples.labels), seed=self.recipe.seed)
        shown, unseen = (_take(self.examples, positions) for positions in rows)
        rule = self.early_stopping(stopping, unseen)
        search = self.fit(shown, part=SEARCH, rule=rule)
        errors = tuple(rule.errors(search.history))
        found = Trained(search.module, search.seconds, errors, best_epoch(errors))
        if stopping.second == "again":
            return self.train_again(found, search)
        if search.best is None:
            raise ModelError("early stopping kept no parameters")
        search.module.load_state_dict(dict(search.best))
        return found if stopping.second == "none" else self.train_on(found, search, shown, unseen)

    def early_stopping(self, stopping: Stopping, unseen: Batch) -> EarlyStopping:
        figures = partial(
            held_out_figures,
            inputs=unseen.inputs,
            labels=unseen.labels,
            epsilon=stopping.fgsm_epsilon(self.recipe),
        )
        return EarlyStopping(figures, stopping.measure, stopping.patience)

    def train_again(self, found: Trained, search: Fitted) -> Trained:
        """Trains a new network on all examples, for the best number of epochs."""
        recipe = self.recipe.override(epochs=found.epochs)
        second = replace(self, recipe=recipe).fit(self.examples, part=SECOND, after=search)
        return replace(found, module=second.module, seconds=search.seconds + second.seconds)

    def train_on(self, found: Trained, search: Fitted, shown: Batch, unseen: Batch) -> Trained:
        """Continues on all examples until the objective on the unseen ones is that on the shown."""
        recipe, best = self.recipe, best_epoch(found.watched)
        target = mean_objective(found.module, recipe, inputs=shown.inputs, labels=shown.labels)
        objective = partial(
            mean_objective, recipe=recipe, inputs=unseen.inputs, labels=unseen.labels
        )
        origin = Origin(
            {key: value.clone() for key, value in found.module.state_dict().items()},
            updates=best * math.ceil(len(shown.labels) / recipe.batch_size),
            epoch=best,
        )
        match = ObjectiveMatch(objective, target)
        second = self.fit(self.examples, part=SECOND, rule=match, origin=origin, after=search)
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
        examples: Batch,
        *,
        part: str,
        rule: StoppingRule | None = None,
        origin: Origin | None = None,
        after: Fitted | None = None,
    ) -> Fitted:
        """Carries out one part of the training; the log holds the part before it, too."""
        one = self.recipe.stopping is None or self.recipe.stopping.second == "none"
        before = [] if after is None else [(SEARCH, after.history)]
        return fit(
            self.build().to(examples.inputs.device),
            self.recipe,
            inputs=examples.inputs,
            labels=examples.labels,
            checkpoint=Path(f"{self.stem}{'.search' if part == SEARCH else ''}.checkpoint.pt"),
            report=report_of_part(self.report, part=int(part == SECOND), parts=1 if one else 2),
            rule=rule,
            origin=origin,
            log=lambda history: write_log(Path(f"{self.stem}.log.csv"), [*before, (part, history)]),
        )


def report_of_part(report: Report, *, part: int, parts: int) -> Report:
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


def _take(examples: Batch, positions: Tensor) -> Batch:
    rows = positions.to(examples.inputs.device)
    return Batch(examples.ids[rows], examples.inputs[rows], examples.labels[rows])
