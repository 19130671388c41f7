"""timm's models, ``timm:resnet18`` or ``timm:resnet18.a1_in1k``, if timm is installed.

Weights are timm's default ones, those of a tag such as ``a1_in1k``, a file, or ``random``.
Normalisation and image transforms are those of the model's own configuration.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from gibbon.core.errors import ModelError, WeightsError, suggest
from gibbon.models.sources import ModelSource, OpenedModel, Preprocessing, place_of
from gibbon.models.sources.optional_libraries import fetching, library, without_pickles
from gibbon.models.sources.weight_names import DEFAULT, word_of
from gibbon.specs.suite import ModelSpec

SCHEME = "timm"
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


class Timm(ModelSource):
    """Models of timm, by name."""

    def check(self, spec: ModelSpec) -> None:
        """Raises a `RequestError` if timm has no such model or tag of weights."""
        _named(spec)

    def open(self, spec: ModelSpec) -> OpenedModel:
        """Returns the model.  Raises a `RequestError` if its weights are not available."""
        name, pretrained = _named(spec), word_of(spec) is not None
        timm = _timm()
        with without_pickles(), fetching(spec.model):
            module: nn.Module = timm.create_model(name, pretrained=pretrained, **spec.arguments)
        config = timm.data.resolve_model_data_config(module)
        return OpenedModel(
            module=module,
            identity=SCHEME,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            weights_used=pretrained,
            notes=(f"its weights are timm's {_full(module, name)}",) if pretrained else (),
        )

    def preprocessing(self, spec: ModelSpec) -> Preprocessing | None:
        """Returns the image transforms of the weights."""
        timm, name = _timm(), _named(spec)
        found = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
        if found is None:
            return None
        config = timm.data.resolve_data_config(pretrained_cfg=found.to_dict())
        _, height, width = config["input_size"]
        sides = tuple(math.floor(side / config["crop_pct"]) for side in (height, width))
        square = height == width
        interpolation = config["interpolation"]
        return Preprocessing(
            sides[0] if square else (sides[0], sides[1]),
            height if square else (height, width),
            interpolation if interpolation in INTERPOLATIONS else "bicubic",
        )


def _timm() -> Any:
    return library("timm", package="timm", scheme=SCHEME)


def _named(spec: ModelSpec) -> str:
    """Returns timm's name of a model and its weights.  Raises a `RequestError`."""
    timm, name, word = _timm(), place_of(spec, SCHEME), word_of(spec)
    if ":" in name:  # timm's own ways to a hub or a folder
        return name
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(f"timm has no model {name!r}{suggest(architecture, timm.list_models())}")
    if word not in (None, DEFAULT):
        tag = str(word)
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise WeightsError(
            f"timm has no weights {tag!r} for {architecture!r}{suggest(tag, tags)} "
            f"Known: {', '.join(tags) or 'none'}, random, or a file"
        )
    if word is not None and not timm.is_model_pretrained(f"{architecture}.{tag}".rstrip(".")):
        raise WeightsError(
            f"timm has no weights for {architecture!r}: give a file, --weights FILE, or "
            "--weights random for none"
        )
    return f"{architecture}.{tag}" if tag else architecture


def _full(module: nn.Module, name: str) -> str:
    config: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    tag = config.get("tag")
    return f"{name.partition('.')[0]}.{tag}" if tag else name
