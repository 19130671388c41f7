"""Fixtures of the tests of faults: honest networks, data, and the flags that are raised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gibbon import evaluate
from gibbon.datasets import DataRequest
from gibbon.datasets.open import open_dataset
from gibbon.models.sources.build import build_model
from gibbon.records.flags import Flag
from gibbon.specs.suite import DatasetSpec, ModelSpec

EXAMPLES = 64


@pytest.fixture(scope="session")
def mnist() -> tuple[Tensor, Tensor]:
    """Inputs in [0, 1], shape (64, 1, 28, 28), and labels."""
    dataset = open_dataset(DatasetSpec(name="mnist", source="mnist"), DataRequest())
    batch = dataset.batch(torch.arange(EXAMPLES).numpy())
    return batch.inputs, batch.labels


@pytest.fixture
def honest() -> Callable[[str], nn.Module]:
    """Returns the trained module of a model of the zoo, by its name, such as ``"softmax"``."""

    def build(name: str) -> nn.Module:
        spec = ModelSpec(name=name, model=name)
        return build_model(spec, input_shape=(1, 28, 28)).classifier.module

    return build


@pytest.fixture
def flags(mnist: tuple[Tensor, Tensor]) -> Callable[..., tuple[Flag, ...]]:
    """Returns the flags that an evaluation of a module on MNIST raises."""

    def raised(model: nn.Module, **arguments: object) -> tuple[Flag, ...]:
        given = {"attack": "pgd", "epsilon": 0.1, "steps": 10, **arguments}
        return evaluate(model, mnist, **given).record.flags  # type: ignore[arg-type]

    return raised
