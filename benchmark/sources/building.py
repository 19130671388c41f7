"""From a spec to a classifier: what all sources of models share."""

from __future__ import annotations

import inspect
from pathlib import Path

from benchmark.classifier import Classifier
from benchmark.errors import ModelError
from benchmark.models import MODELS
from benchmark.registry import their_code
from benchmark.sources import BuiltModel
from benchmark.specs import ModelSpec


def check_model(spec: ModelSpec, *, where: str) -> None:
    """Refuses a spec whose source does not exist, before anything is loaded."""
    MODELS.get(spec.model, where=where)


def build_model(spec: ModelSpec, *, input_shape: tuple[int, ...]) -> BuiltModel:
    """Returns the classifier of a spec, for inputs of a dataset's shape.

    Raises a `RequestError` that names the source and the cure.
    """
    builder = MODELS.load(spec.model)
    with their_code("the model can't be built"):
        if spec.weights is None:
            built = builder()
        elif "weights" in inspect.signature(builder).parameters:
            built = builder(weights=Path(spec.weights))
        else:
            raise ModelError("it takes no weights file")
    if not isinstance(built, Classifier):
        raise ModelError(
            "its entry point must return a benchmark.classifier.Classifier, "
            f"got {type(built).__name__}"
        )
    return BuiltModel(built, spec.model)
