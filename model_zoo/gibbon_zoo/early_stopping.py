"""Early stopping: which epoch was best, when a training ends, and which examples are held out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal

import torch
from torch import Tensor

from gibbon.core.errors import SpecError
from gibbon.core.rng import derive_key
from gibbon_zoo.learner import M
from gibbon_zoo.recipe import Stopping
from gibbon_zoo.training_log import EpochRecord


@dataclass(frozen=True)
class HeldOutFigures:
    """Figures of a network in training; fields as in `EpochRecord`."""

    clean_error: float | None = None
    adversarial_error: float | None = None
    adversarial_confidence: float | None = None
    objective: float | None = None
    loss_held_out: float | None = None
    fgsm_error: float | None = None
    fgsm_confidence: float | None = None
    note: str = ""


class StoppingRule(ABC, Generic[M]):
    """Measures a network after every epoch, and decides when its training ends."""

    @abstractmethod
    def measure(self, module: M) -> HeldOutFigures:
        """Returns figures of the module in its current state."""

    @abstractmethod
    def ended(self, history: Sequence[EpochRecord]) -> bool:
        """Returns whether training ends after these epochs."""

    @abstractmethod
    def keeps(self, history: Sequence[EpochRecord]) -> bool:
        """Returns whether the parameters after the last of these epochs are the best so far."""


@dataclass(frozen=True)
class EarlyStopping(StoppingRule[M]):
    """Ends a training when an error no longer falls, and keeps the best parameters.

    Args:
        figures: measures a module.
        error: the error that is to fall.
        patience: epochs without a lower error after which training ends.
    """

    figures: Callable[[M], HeldOutFigures]
    error: Literal["clean_error", "adversarial_error"]
    patience: int

    def measure(self, module: M) -> HeldOutFigures:
        """Returns the errors on the held-out examples."""
        return self.figures(module)

    def ended(self, history: Sequence[EpochRecord]) -> bool:
        """Returns whether the last ``patience`` epochs brought no lower error."""
        return bool(history) and len(history) - best_epoch(self.errors(history)) >= self.patience

    def keeps(self, history: Sequence[EpochRecord]) -> bool:
        """Returns whether the last epoch's error is below all earlier ones."""
        return best_epoch(self.errors(history)) == len(history)

    def errors(self, history: Sequence[EpochRecord]) -> list[float]:
        """Returns the error after each epoch.  Raises `SpecError` if it was not measured."""
        errors = [getattr(record, self.error) for record in history]
        if None in errors:
            raise SpecError(f"{self.error} was not measured", where="recipe: stopping.measure")
        return errors


@dataclass(frozen=True)
class ObjectiveMatch(StoppingRule[M]):
    """Ends a training when the objective on some examples is down to a target.

    Goodfellow et al., "Maxout networks", ICML 2013, section 5.1: the training on all examples
    continues until the likelihood of the former validation examples is that of the training
    examples at the best epoch; https://arxiv.org/abs/1302.4389.  Their scripts compare the cost
    that is minimised, with dropout.

    Args:
        objective: returns the mean objective of a module on these examples.
        target: training ends after the first epoch with an objective of at most this.
    """

    objective: Callable[[M], float]
    target: float

    def measure(self, module: M) -> HeldOutFigures:
        """Returns the objective."""
        return HeldOutFigures(objective=self.objective(module))

    def ended(self, history: Sequence[EpochRecord]) -> bool:
        """Returns whether the last objective is at most the target."""
        objective = history[-1].objective if history else None
        return objective is not None and objective <= self.target

    def keeps(self, history: Sequence[EpochRecord]) -> bool:
        """Returns False: the last parameters are the result."""
        return False


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
    generator = torch.Generator().manual_seed(derive_key(seed, "validation"))
    return _cut(torch.randperm(count, generator=generator), held_out)


def held_out_positions(stopping: Stopping, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the positions to train on and the held-out ones of ``count`` examples.

    Raises `SpecError` if nothing would be left to train on.

    >>> stopping = Stopping(measure="clean_error", held_out=2, patience=1, split="last")
    >>> held_out_positions(stopping, 5, seed=0)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if stopping.split == "shuffled":
        return validation_split(count, held_out=stopping.held_out, seed=seed)
    return _cut(torch.arange(count), stopping.held_out)


def _cut(order: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    count = len(order)
    if held_out >= count:
        raise SpecError(
            f"{held_out} examples can't be held out of {count}", where="recipe: stopping.held_out"
        )
    return order[: count - held_out], order[count - held_out :]
