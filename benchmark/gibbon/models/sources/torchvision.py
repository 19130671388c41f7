"""torchvision's classification models, ``torchvision:resnet50``.

Weights are torchvision's default ones, those of a name such as ``IMAGENET1K_V1``, a file, or
``random``.  Normalisation and image transforms are those of the weights' configuration, or of the
default weights' if there are none.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from gibbon.core.errors import ModelError, WeightsError, suggest
from gibbon.models.sources import ModelSource, OpenedModel, Preprocessing, place_of
from gibbon.models.sources.class_names import names_in
from gibbon.models.sources.optional_libraries import fetching, library, without_pickles
from gibbon.models.sources.weight_names import DEFAULT, word_of
from gibbon.specs.suite import ModelSpec

SCHEME = "torchvision"


class Torchvision(ModelSource):
    """Models of torchvision, by name."""

    def check(self, spec: ModelSpec) -> None:
        """Raises a `RequestError` if torchvision has no such model or weights."""
        _weights(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the model.  Raises a `RequestError` if its weights are not available."""
        name, weights = place_of(spec, SCHEME), _weights(spec)
        with warnings.catch_warnings(), without_pickles(), fetching(spec.model):
            warnings.simplefilter("ignore", FutureWarning)  # of another way to draw random weights
            module: nn.Module = _models().get_model(
                name, weights=weights, progress=False, **spec.arguments
            )
        config = _config(spec)
        return OpenedModel(
            module=module,
            identity=SCHEME,
            mean=config and tuple(config.mean),
            std=config and tuple(config.std),
            weights_used=weights is not None,
            class_names=names_in({"classes": weights.meta.get("categories")}) if weights else (),
            notes=(f"its weights are torchvision's {weights.name}",) if weights else (),
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns the image transforms of the weights."""
        config = _config(spec)
        if config is None:
            return None
        (resize,), (crop,) = config.resize_size, config.crop_size
        interpolation = config.interpolation.value
        return Preprocessing(resize, crop, interpolation)


def _models() -> Any:
    return library("torchvision.models", package="torchvision", scheme=SCHEME)


def _known(name: str) -> Any:
    """Returns the enumeration of a model's weights.  Raises `ModelError`."""
    models = _models()
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classification model {name!r}{suggest(name, known)}")
    return models.get_model_weights(name)


def _weights(spec: ModelSpec) -> Any:
    """Returns torchvision's weights for a spec, or None for a file's or random ones."""
    name = place_of(spec, SCHEME)
    enumeration, word = _known(name), word_of(spec)
    if word is None:
        return None
    names = [each.name for each in enumeration]
    if not names:
        raise WeightsError(
            f"torchvision has no weights for {name!r}: give a file, --weights FILE, or "
            "--weights random for none"
        )
    if word == DEFAULT:
        return enumeration.DEFAULT
    if word not in names:
        raise WeightsError(
            f"torchvision has no weights {word!r} for {name!r}{suggest(word, names)} "
            f"Known: {', '.join(names)}, {DEFAULT}, random, or a file"
        )
    return enumeration[word]


def _config(spec: ModelSpec) -> Any:
    """Returns the transforms of the weights, or of the default weights if there are none."""
    weights = _weights(spec) or getattr(_known(place_of(spec, SCHEME)), "DEFAULT", None)
    return weights.transforms() if weights is not None else None
