"""Recipes, networks and examples that train in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gibbon.datasets.base import Batch
from gibbon.models.registry import TrainingProgress
from gibbon_zoo.architecture import Architecture
from gibbon_zoo.early_stopping import StoppingRule
from gibbon_zoo.maxout import Maxout
from gibbon_zoo.maxout_sigmoid import MaxoutSigmoid
from gibbon_zoo.rbf import Rbf
from gibbon_zoo.recipe import Recipe
from gibbon_zoo.softmax import Softmax
from gibbon_zoo.training import Fitted, Origin, fit
from gibbon_zoo.training_log import EpochRecord

ADAM = {"name": "adam", "learning_rate": 0.01, "schedule": "linear"}
SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
PARTS = {"dataset": "mnist", "epochs": 3, "batch_size": 16, "spread": 0.1, "optimiser": ADAM}
# The fields of the original recipe, with numbers that matter within a few steps.
ORIGINAL = {
    "architecture": "maxout",
    "optimiser": {
        "name": "sgd",
        "learning_rate": 0.2,
        "decay": {"factor": 1.01, "minimum": 0.12},
        "momentum": 0.5,
        "momentum_ramp": {"start": 1, "end": 3, "final": 0.7},
    },
    "dropout": {"inputs": 0.2, "inputs_scale": 1.0, "hidden": 0.3},
    "max_norm": 1.9365,
}


class Stop(Exception):  # noqa: N818 - it is no error
    """Raised where a training is interrupted."""


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({**PARTS, **changes})


def blobs(count: int = 200) -> tuple[Tensor, Tensor]:
    """Four classes of noisy patterns, inputs of shape (N, 1, 3, 4)."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    patterns = torch.rand(4, 1, 3, 4, generator=random)
    noise = 0.2 * torch.randn(count, 1, 3, 4, generator=random)
    return (patterns[labels] + noise).clamp_(0, 1), labels


def examples(count: int = 200) -> Batch:
    inputs, labels = blobs(count)
    return Batch(torch.arange(count), inputs, labels)


def build(plan: Recipe) -> Architecture:
    if plan.architecture == "maxout":
        return Maxout(inputs=12, classes=4, units=6, pieces=2)
    if plan.architecture == "maxout-sigmoid":
        return MaxoutSigmoid(inputs=12, classes=4, units=6, pieces=2)
    return (Rbf if plan.architecture == "rbf" else Softmax)(inputs=12, classes=4)


def ignore(progress: TrainingProgress) -> None:
    """Reports to nobody."""


def stop_at(step: int) -> Callable[[TrainingProgress], None]:
    def report(progress: TrainingProgress) -> None:
        if progress.step >= step:
            raise Stop

    return report


def fitted(
    plan: Recipe,
    folder: Path,
    report: Callable[[TrainingProgress], None] = ignore,
    *,
    every: float = 1e9,
    rule: StoppingRule | None = None,
    origin: Origin | None = None,
    log: Callable[[Sequence[EpochRecord]], None] = lambda history: None,
) -> Fitted:
    inputs, labels = blobs()
    return fit(
        build(plan),
        plan,
        inputs=inputs,
        labels=labels,
        checkpoint=folder / "checkpoint.pt",
        report=report,
        checkpoint_seconds=every,
        rule=rule,
        origin=origin,
        log=log,
    )


def flat(module: torch.nn.Module) -> Tensor:
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def train(
    plan: Recipe,
    folder: Path,
    report: Callable[[TrainingProgress], None] = ignore,
    *,
    every: float = 1e9,
) -> Tensor:
    """Trains by a recipe and returns all of the weights in one vector."""
    return flat(fitted(plan, folder, report, every=every).module)
