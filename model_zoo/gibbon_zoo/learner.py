"""The interface between the training loop and what it trains.

A `Learner` is a module with its examples and its objective.  The loop owns the order of the
examples, the optimiser, the schedules, checkpoints and the end of the training; a learner starts
its module, reads batches, and adds the gradient of a batch's objective.  There are two: the zoo's
architectures by their recipes, and any model of a user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gibbon.datasets.base import Batch, Dataset
from gibbon_zoo.recipe import Optimiser

M = TypeVar("M", bound=nn.Module)


class LoopRecipe(Protocol):
    """The fields of a recipe that the training loop reads."""

    @property
    def seed(self) -> int:
        """Seed of every random number."""

    @property
    def epochs(self) -> int:
        """Passes over the examples."""

    @property
    def batch_size(self) -> int:
        """Number of examples in a step."""

    @property
    def optimiser(self) -> Optimiser:
        """The optimiser and its schedules."""

    def differences(self, other: Self) -> list[str]:
        """Returns what another recipe has that this one has not, in words."""

    def model_dump_json(self) -> str:
        """Returns the recipe as JSON."""

    @classmethod
    def model_validate_json(cls, json_data: str) -> Self:
        """Returns the recipe in a JSON text."""


class ExampleFeed(ABC):
    """Labelled examples that are trained on or measured."""

    device: torch.device

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def feed(self, chunks: Sequence[Tensor]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields inputs and labels, on the device, for each list of positions."""

    @abstractmethod
    def take(self, positions: Tensor) -> Self:
        """Returns the examples at these positions."""

    def in_order(self, size: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields all examples in batches of ``size``."""
        return self.feed(list(torch.split(torch.arange(len(self)), size)))

    def whole(self) -> tuple[Tensor, Tensor]:
        """Returns all inputs and labels as two tensors."""
        return next(self.in_order(len(self)))


class HeldExamples(ExampleFeed):
    """Examples in memory, on the device.

    Args:
        batch: inputs of shape (N, ...) and labels of shape (N,).
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.device = batch, batch.inputs.device

    def __len__(self) -> int:
        return len(self.batch.labels)

    def feed(self, chunks: Sequence[Tensor]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields inputs and labels for each list of positions."""
        for chunk in chunks:
            rows = chunk.to(self.device)
            inputs = self.batch.inputs.index_select(0, rows)
            yield inputs, self.batch.labels.index_select(0, rows)

    def take(self, positions: Tensor) -> Self:
        """Returns the examples at these positions."""
        rows, batch = positions.to(self.device), self.batch
        return type(self)(Batch(batch.ids[rows], batch.inputs[rows], batch.labels[rows]))


class StoredExamples(ExampleFeed):
    """Examples of a dataset, which are read when they are needed.

    Args:
        dataset: the dataset, whose images may be decoded by processes in advance.
        ids: int64, shape (N,): the examples, by id.
        device: where batches go.
    """

    def __init__(self, dataset: Dataset, ids: Tensor, *, device: torch.device) -> None:
        self.dataset, self.ids, self.device = dataset, ids, device

    def __len__(self) -> int:
        return len(self.ids)

    def feed(self, chunks: Sequence[Tensor]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yields inputs and labels; a chunk that repeats the one before it is read once."""
        repeats: list[int] = []
        read: list[Tensor] = []
        for chunk in chunks:
            if read and chunk is read[-1]:
                repeats[-1] += 1
            else:
                read.append(chunk)
                repeats.append(1)
        batches = self.dataset.batches([self.ids[chunk].numpy() for chunk in read])
        try:
            for times, batch in zip(repeats, batches, strict=True):
                moved = batch.to(self.device)
                for _ in range(times):
                    yield moved.inputs, moved.labels
        finally:
            batches.close()

    def take(self, positions: Tensor) -> Self:
        """Returns the examples at these positions."""
        return type(self)(self.dataset, self.ids[positions], device=self.device)

    @classmethod
    def of(cls, dataset: Dataset, *, device: torch.device, without: Sequence[int] = ()) -> Self:
        """Returns all examples of a dataset except some, by id."""
        ids = np.setdiff1d(np.arange(len(dataset), dtype=np.int64), np.asarray(without, np.int64))
        return cls(dataset, torch.from_numpy(ids), device=device)


class Learner(ABC, Generic[M]):
    """A module in training, with its examples and its objective.

    Attributes:
        module: the module whose parameters are trained and stored.
        recipe: recipe of the training.
        examples: what it is trained on.
        replays: steps in succession on each batch.
        smallest_batch: examples that the last batch of a pass has at least, if there are so many;
            it then begins earlier and repeats some of the batch before.
    """

    module: M
    recipe: LoopRecipe
    examples: ExampleFeed
    replays: int = 1
    smallest_batch: int = 1

    @abstractmethod
    def check(self) -> None:
        """Raises `SpecError` if the recipe does not fit the module."""

    @abstractmethod
    def start(self) -> None:
        """Initialises the parameters."""

    @abstractmethod
    def descend(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Adds the gradient of a batch's mean objective to the parameters' and returns its value.

        ``key`` is the number of the step, on which random numbers depend.
        """

    @abstractmethod
    def objective(self, inputs: Tensor, labels: Tensor, *, key: int) -> Tensor:
        """Returns a batch's mean objective and changes nothing."""

    @abstractmethod
    def for_examples(self, module: M, examples: ExampleFeed) -> Learner[M]:
        """Returns a learner of another module and other examples, by this recipe."""

    def constrain(self) -> None:
        """Puts the parameters back into their constraints after a step."""

    def carried(self) -> dict[str, Tensor]:
        """Returns tensors that the next step needs besides parameters and the optimiser's state."""
        return {}

    def restore(self, carried: dict[str, Tensor]) -> None:
        """Takes tensors that `carried` returned before an interruption."""


def mean_over(learner: Learner[M]) -> float:
    """Returns the mean of a learner's objective over its examples, which changes nothing.

    Random numbers are drawn as in training, equal for equal numbers of examples.
    """
    total = 0.0
    for batch, (inputs, labels) in enumerate(learner.examples.in_order(learner.recipe.batch_size)):
        # The steps of a training have keys from 0 on.
        total += float(learner.objective(inputs, labels, key=-1 - batch)) * len(inputs)
    return total / len(learner.examples)


def sample_of(examples: ExampleFeed, count: int) -> ExampleFeed:
    """Returns a fixed sample of examples, or all of them if they are no more than ``count``."""
    if count >= len(examples):
        return examples
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
    return examples.take(order[:count].sort().values)
