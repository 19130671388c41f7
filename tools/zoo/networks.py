"""Networks that are trained for a measurement, and the data for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gibbon.datasets import DATASETS, DataRequest, Split
from gibbon.datasets.base import Batch, Dataset
from gibbon.models.classifier import Classifier
from gibbon_zoo.procedure import train_network
from gibbon_zoo.recipe import Recipe
from gibbon_zoo.zoo import architecture_of, network_classifier


def load_split(name: str, split: Split, data_dir: Path | None) -> Dataset:
    """Returns a registered dataset's split.

    Args:
        name: registered name.
        split: the split.
        data_dir: folder of data that do not come with Gibbon; the usual one if None.
    """
    request = DataRequest(split) if data_dir is None else DataRequest(split, data_dir)
    return DATASETS.load(name)(request)


def trained_classifier(recipe: Recipe, examples: Batch, *, stem: Path) -> Classifier:
    """Returns a new network, trained by a recipe without a report.

    Args:
        recipe: recipe of the training.
        examples: examples to train on.
        stem: start of the names of the checkpoints and the log.
    """
    trained = train_network(
        recipe,
        partial(architecture_of, recipe),
        examples,
        stem=str(stem),
        report=lambda _: None,
    )
    return network_classifier(trained.module)
